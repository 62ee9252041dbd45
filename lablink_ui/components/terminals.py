"""Terminals in tabs: the component speaks to the server over a websocket for each, past the page's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nicegui.element import Element

# Imported for its effect too: it makes the terminal emulator known to pages under the name "nicegui-xterm".
from nicegui.elements import xterm
from nicegui.elements.xterm import Xterm  # noqa: F401


class TerminalTabs(Element, component="terminals.js"):
    """The terminals of a seat. ``base`` is the address of their connections; watchers only see what others opened."""

    def __init__(self, *, base: str, claim_id: int, testid: str, hostname: str, is_watch: bool = False) -> None:
        super().__init__()
        self.add_resource(Path(xterm.__file__).parent / "dist")
        self.props["base"], self.props["claim"], self.props["testid"] = base, claim_id, testid
        self.props["hostname"], self.props["watch"] = hostname, is_watch

    def show(self, terminal_ids: Sequence[int], *, starts: bool = False, may_type: bool = True) -> None:
        """Shows exactly these terminals; with ``starts`` it opens the first where there is none."""
        self.run_method("show", list(terminal_ids), starts, may_type)
