"""Our own components: small Vue parts that own what they show, told by the server what changed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nicegui import json
from nicegui.element import Element

from lablink_ui.components.change import Row, find_change


class Told(Element):
    """A part of a page that is told what to show by calls of its methods in the browser."""

    def tell(self, method: str, *args: Any) -> None:
        """Calls a method of it in the browser; what comes of that nobody hears.

        NiceGUI's ``run_method``, which could be waited for, makes a task of each call: too dear where hundreds of
        pages are told at once, and until the task has run nobody can know that there is something to send.
        """
        if self._is_safe_to_interact():
            call = f"runMethod({self.id}, {json.dumps(method)}, {json.dumps(args)})"
            self.client.outbox.enqueue_message("run_javascript", {"code": call}, self.client.id)


@dataclass(frozen=True, slots=True)
class Column:
    """A column. ``kind``: link, chip, person, bar, progress, ago, when, text.

    Where room is short, ``wide`` ones are left out: 3 first, then 2, then 1.

    On a phone a row is a card; ``phone`` says where in it: title (else the first), head (a whole line, before all
    others), side (else a chip), line (a whole line), rest (two thirds of one), note (else: a third, with its label).
    """

    key: str
    label: str
    kind: str = "text"
    sortable: bool = True
    wide: int = 0
    wrap: bool = False
    phone: str = ""

    def as_props(self) -> dict[str, Any]:
        """What the component gets."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Empty:
    """What an empty table says, with the next step in it."""

    title: str
    text: str
    action: str = ""
    href: str = ""


@dataclass(frozen=True, slots=True)
class Verb:
    """Something that can be done with selected rows."""

    verb: str
    label: str
    danger: bool = False


class LiveTable(Told, component="live_table.js"):
    """A table that is reset once and then patched by who knows what changes, or shown all its rows again and again.

    ``chosen`` is the filter it starts with; ``on_search`` takes over the search from the browser; ``on_resync`` is
    called when the browser lost a patch (of rows that were shown it gets all of them anew by itself).
    """

    def __init__(
        self,
        label: str,
        columns: Sequence[Column],
        *,
        empty: Empty,
        filters: Sequence[tuple[str, str]] = (),
        verbs: Sequence[Verb] = (),
        sort: str = "",
        descending: bool = False,
        searchable: bool = True,
        armed: bool = False,
        chosen: str = "",
        on_search: Callable[[str], object] | None = None,
        search_testid: str = "",
        on_act: Callable[[str, list[str]], Awaitable[None]] | None = None,
        on_resync: Callable[[], None] | None = None,
    ) -> None:
        super().__init__()
        self._seq = 0
        self._shown: Sequence[Row] | None = None
        self.props["label"] = label
        self.props["columns"] = [column.as_props() for column in columns]
        self.props["empty"] = {name: getattr(empty, name) for name in empty.__slots__}
        self.props["filters"] = [{"value": value, "label": text} for value, text in filters]
        self.props["verbs"] = [{name: getattr(verb, name) for name in verb.__slots__} for verb in verbs]
        self.props["sort"], self.props["descending"] = sort or columns[0].key, descending
        self.props["searchable"], self.props["armed"], self.props["chosen"] = searchable, armed, chosen
        self.props["remote"], self.props["search-id"] = on_search is not None, search_testid
        if on_search is not None:
            self.on("search", lambda event: on_search(str(event.args)))
        if on_act is not None:
            self.on("act", lambda event: on_act(str(event.args["verb"]), [str(name) for name in event.args["names"]]))
        self.on("resync", lambda _: on_resync() if on_resync else self.reset(self._shown or []))

    def show(self, rows: Sequence[Row], *, anew: bool = False) -> None:
        """Shows exactly these rows, which nobody may change later; the browser is told only what differs.

        What differs lights up; with ``anew`` (somebody looks at something else now) nothing does.
        """
        former, self._shown = self._shown, rows
        if anew or former is None:
            self.reset(rows)
        else:
            change = find_change(former, rows)
            self.patch(change.upserts, change.removals)

    def reset(self, rows: Sequence[Row]) -> None:
        """Shows exactly these rows, as if for the first time."""
        self._seq = 0
        self.tell("reset", rows)

    def patch(self, upserts: Sequence[Row], removals: Collection[int]) -> None:
        """Adds or replaces rows by their id, and takes some away."""
        if upserts or removals:
            self._seq += 1
            self.tell("patch", upserts, list(removals), self._seq)


class LogView(Told, component="log_view.js"):
    """A log: searched, filtered, followed and held in the browser. ``href``: where it is to be had as a file."""

    def __init__(self, label: str, *, testid: str, href: str) -> None:
        super().__init__()
        self.props["label"], self.props["testid"], self.props["href"] = label, testid, href

    def append(self, lines: Sequence[list[Any]], kind: str = "log") -> None:
        """Adds lines: lists of id, ms since 1970, level, source, message. Of one kind, older ids are skipped."""
        if lines:
            self.tell("append", lines, kind)


class Moment(Element, component="moment.js"):
    """How long ago something was, counting on by itself; the date is its title."""

    def __init__(self) -> None:
        super().__init__()

    def show(self, at: datetime | None) -> None:
        """Shows a moment, or a dash."""
        stamp = at.isoformat() if at else None
        if self.props.get("at") != stamp:
            self.props["at"] = stamp
            self.update()


class CopyButton(Element, component="copy_button.js"):
    """Copies a text, and says so."""

    def __init__(self, label: str, text: str = "") -> None:
        super().__init__()
        self.props["label"], self.props["text"] = label, text

    def hold(self, text: str) -> None:
        """Changes what is copied."""
        self.props["text"] = text
        self.update()


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, marked on a chart."""

    at: datetime
    words: str


class Chart(Told, component="chart.js"):
    """Lines over time, from 0 to 100. ``series``: key, label, and which of the style sheet's tones."""

    def __init__(self, label: str, series: Sequence[tuple[str, str, str]], *, unit: str = "%") -> None:
        super().__init__()
        self.props["label"], self.props["unit"] = label, unit
        self.props["series"] = [{"key": key, "label": text, "tone": tone} for key, text, tone in series]

    def reset(
        self,
        points: Sequence[dict[str, Any]],
        *,
        marks: Sequence[Mark],
        since: datetime,
        until: datetime,
        every_s: float,
    ) -> None:
        """Shows these points, one ``every_s`` or so: dicts of ``at`` and a value for each series."""
        marked = [{"at": mark.at.isoformat(), "words": mark.words} for mark in marks]
        self.tell("reset", points, marked, since.isoformat(), until.isoformat(), every_s)


@dataclass(frozen=True, slots=True)
class Measure:
    """What the map of the fleet can be coloured by; ``bars`` are the four figures between its five colours."""

    key: str
    label: str
    unit: str
    bars: tuple[int, int, int, int]


class FleetMap(Told, component="fleet_map.js"):
    """A cell for each machine; reset once and then patched, as a table is."""

    def __init__(self, measures: Sequence[Measure], *, on_resync: Callable[[], None]) -> None:
        super().__init__()
        self._seq = 0
        self.props["measures"] = [
            {"key": each.key, "label": each.label, "unit": each.unit, "bars": each.bars} for each in measures
        ]
        self.on("resync", lambda _: on_resync())

    def reset(self, cells: Sequence[Row]) -> None:
        """Shows exactly these cells."""
        self._seq = 0
        self.tell("reset", cells)

    def patch(self, upserts: Sequence[Row], removals: Collection[int]) -> None:
        """Adds or replaces cells by their id, and takes some away."""
        if upserts or removals:
            self._seq += 1
            self.tell("patch", upserts, list(removals), self._seq)


class Ask(Element, component="ask.js"):
    """The question before something that cannot be undone."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: asyncio.Future[bool] | None = None
        self.on("answer", lambda event: self._take(yes=bool(event.args)))

    async def ask(self, title: str, body: str, *, verb: str, danger: bool = True) -> bool:
        """Asks; returns whether the answer was yes. A newer question takes the place of an open one."""
        self._take(yes=False)
        self._answer = asyncio.get_running_loop().create_future()
        self.run_method("ask", title, body, verb, danger)
        return await self._answer

    def _take(self, *, yes: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(yes)
