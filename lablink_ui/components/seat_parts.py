"""The components of seats: a key that is shown once, the time until something ends, and whether somebody is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from nicegui.element import Element


class KeyOnce(Element, component="key_once.js"):
    """A seat key, shown this once; before and afterwards a way to a new one.

    ``is_fresh``: the page before may have left the key of a claim in this browser; it is taken from there.
    """

    def __init__(
        self, words: str, *, verb: str, testid: str, on_renew: Callable[[], Awaitable[object]], is_fresh: bool
    ) -> None:
        super().__init__()
        self.props["words"], self.props["verb"], self.props["testid"] = words, verb, testid
        self.props["fresh"] = is_fresh
        self.on("renew", lambda _: on_renew())

    def show(self, key: str) -> None:
        """Shows a key until it is put away or the page is left."""
        self.run_method("show", key)


class UntilEnd(Element, component="until_end.js"):
    """How long something still lasts, counting down by itself."""

    def show(self, at: datetime | None) -> None:
        """Counts down to this moment."""
        stamp = at.isoformat() if at else None
        if self.props.get("at") != stamp:
            self.props["at"] = stamp
            self.update()


class UseWatch(Element, component="use_watch.js"):
    """Tells when somebody does something on the page: at its start, and then at most every few seconds."""

    def __init__(self, on_use: Callable[[], Awaitable[object]]) -> None:
        super().__init__()
        self.on("use", lambda _: on_use())


class MomentField(Element, component="moment_field.js"):
    """A labelled input for a moment, in the reader's own time zone; ``value`` is None while it is empty."""

    def __init__(self, label: str, *, name: str, testid: str) -> None:
        super().__init__()
        self.value: datetime | None = None
        self.props["label"], self.props["name"], self.props["testid"] = label, name, testid
        self.on("choose", lambda event: self._take(str(event.args or "")))

    def show(self, at: datetime | None) -> None:
        """Puts a moment into it."""
        self.value = at
        self.props["at"] = at.isoformat() if at else None
        self.update()

    def _take(self, stamp: str) -> None:
        # The browser's own words; anything else is no moment.
        try:
            self.value = datetime.fromisoformat(stamp) if stamp else None
        except ValueError:
            self.value = None
