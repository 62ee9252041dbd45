"""Short lists that are drawn anew when they change, such as sessions; each line with what can be done about it."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from nicegui.element import Element

from backend.services.admin_sessions import AdminSessionView
from lablink_ui.components import Moment
from lablink_ui.parts import button, tag

_BROWSERS = (("Edg", "Edge"), ("OPR", "Opera"), ("Firefox", "Firefox"), ("Chrom", "Chrome"), ("Safari", "Safari"))
_SYSTEMS = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


# Words, or words and the moment that they are about.
Detail = str | tuple[str, datetime]


@dataclass(frozen=True)
class Line:
    """A line of a list: what it is about, what to know about it, and the verb of its button (none without one)."""

    testid: str
    title: str
    details: tuple[Detail, ...]
    verb: str = ""
    verb_testid: str = ""
    mark: str = ""


class LineList:
    """A list of lines. ``on_act`` gets the number of the line whose button was pressed."""

    def __init__(self, label: str, nothing: str, *, on_act: Callable[[int], Awaitable[object]] | None = None) -> None:
        self._nothing, self._on_act = nothing, on_act
        self._shown: Sequence[tuple[int, Line]] | None = None
        self._box: Element = tag("ul", "lines", aria_label=label)
        self._box.client.on_delete(self._end)

    def show(self, lines: Sequence[tuple[int, Line]]) -> None:
        """Shows these lines, each with its number, if they differ from those that are shown."""
        if lines == self._shown:
            return
        self._shown = lines
        self._box.clear()
        with self._box:
            for number, line in lines:
                self._draw(number, line)
            if not lines:
                tag("li", "sub", self._nothing)

    def _draw(self, number: int, line: Line) -> None:
        with tag("li", "", data_testid=line.testid):
            with tag("div", "what"):
                with tag("span", "row"):
                    tag("strong", "", line.title)
                    if line.mark:
                        tag("span", "chip good", line.mark)
                with tag("span", "sub details"):
                    for detail in line.details:
                        _draw_detail(detail)
            if line.verb and self._on_act:
                act = self._on_act
                button(
                    line.verb,
                    lambda: act(number),
                    classes="small danger",
                    testid=line.verb_testid,
                    aria_label=f"{line.verb}: {line.title}",
                )

    def _end(self) -> None:
        """Holds on to nothing of a page that has gone."""
        self._on_act = None


def _draw_detail(detail: Detail) -> None:
    if isinstance(detail, str):
        tag("span", "", detail)
        return
    with tag("span"):
        tag("span", "", f"{detail[0]} ")
        Moment().show(detail[1])


def session_lines(sessions: Sequence[AdminSessionView], *, own_id: int | None, may_end: bool) -> list[tuple[int, Line]]:
    """Sessions as lines; this browser's own has no button: for that there is signing out."""
    return [
        (
            each.id,
            Line(
                f"session-{each.id}",
                device_of(each.user_agent),
                (
                    each.address or "address unknown",
                    ("signed in", each.created_at),
                    ("seen", each.last_seen_at or each.created_at),
                ),
                "Sign out" if may_end and each.id != own_id else "",
                f"session-end-{each.id}",
                "This browser" if each.id == own_id else "",
            ),
        )
        for each in sessions
    ]


def device_of(user_agent: str) -> str:
    """``Firefox on Linux``: what a browser says of itself, for people; never a proof of anything."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    if browser and system:
        return f"{browser} on {system}"
    return browser or system or re.sub(r"[^\w./ -]", "", user_agent)[:40] or "Unknown browser"
