"""The alarms: what somebody should look at now, by pool, and what was resolved lately."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui
from nicegui.element import Element

from backend.live.changes import ChangeSet, Snapshot
from backend.services.alarms import AlarmView, acknowledge_alarms, list_recent_alarms
from lablink_ui.components import Column, Empty, LiveTable, Moment
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import Chip, button, tag, text
from lablink_ui.rows import alarm_row
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import ALARM_WORDS, SEVERITY_WORDS, count, person

_COLUMNS = (
    Column("what", "What", "link", wrap=True, phone="head"),
    Column("state", "Severity", "chip", phone="title"),
    Column("opened", "Opened", "when", wide=1, phone="note"),
    Column("resolved", "Resolved", "when", phone="note"),
    Column("by", "Acknowledged by", wide=2, phone="note"),
)
_NONE_YET = Empty("No alarm was resolved lately", "Each ends by itself when its cause is gone, and then stands here.")
_THE_SERVER = "The server"
_FOCUS_NEXT = """
  const open = document.querySelector("[data-testid=alarms-open]");
  (open.querySelector("button[data-testid^=alarm-acknowledge-]:not(.hidden)") || open).focus();
"""


@page_at("/admin/alarms")
async def alarms(request: Request) -> Response | None:
    """The alarms."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    with admin_frame("Alarms", active="alarms", user=visit.admin.name) as frame:
        with tag("section", "section", aria_label="Open alarms"):
            listed = _Open(visit)
        with tag("section", "section", aria_label="Resolved alarms"):
            tag("h2", "", "Resolved")
            table = LiveTable("Resolved alarms", _COLUMNS, empty=_NONE_YET, sort="resolved", descending=True)

        async def read() -> None:
            table.show([alarm_row(alarm) for alarm in await list_recent_alarms(visit.house.db)])

        reader = Reader(read)

        def show(snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
            frame.subtitle.say(_subtitle(snapshot))
            listed.show(_in_order(snapshot))
            if changes is None or changes.alarms.removals or changes.is_whole:
                reader.ask()

        await visit.follow(frame, start=show, on_changes=show)
    return None


class _Open:
    """The open alarms, one card for each pool and one for the servers.

    Cards are drawn anew only when alarms come or go; else lines change in place, under whoever is about to press.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._drawn: list[tuple[str, int]] | None = None
        self._lines: dict[int, _Line] = {}
        self._alls: dict[str, Element] = {}
        self._has_acted = False
        self._box = tag("div", "stack", aria_busy="true", data_testid="alarms-open", tabindex="-1")

    def show(self, found: Sequence[AlarmView]) -> None:
        """Shows these."""
        groups: dict[str, list[AlarmView]] = {}
        for alarm in found:
            groups.setdefault(alarm.pool or _THE_SERVER, []).append(alarm)
        places = [(name, alarm.id) for name, members in groups.items() for alarm in members]
        if places != self._drawn:
            self._drawn = places
            self._draw(groups)
        for name, members in groups.items():
            for alarm in members:
                self._lines[alarm.id].show(alarm)
            is_worth_it = sum(alarm.acknowledged_at is None for alarm in members) > 1
            self._alls[name].set_visibility(is_worth_it and self._visit.may_operate)
        if self._has_acted:
            # The button that was pressed is gone; the keyboard goes on at the next one.
            self._has_acted = False
            ui.run_javascript(_FOCUS_NEXT)

    def _draw(self, groups: Mapping[str, Sequence[AlarmView]]) -> None:
        self._lines, self._alls = {}, {}
        self._box.props["aria-busy"] = "false"
        self._box.clear()
        with self._box:
            for name, members in groups.items():
                with tag("section", "card pad", aria_label=name):
                    with tag("div", "row"):
                        tag("h2", "", name)
                        ids = [alarm.id for alarm in members]
                        self._alls[name] = self._button("Acknowledge all", ids, f"alarms-acknowledge-{ids[0]}", name)
                    with tag("ul", "alarms", aria_label=f"Alarms: {name}"):
                        for alarm in members:
                            self._lines[alarm.id] = _Line(alarm, self._button)
            if not groups:
                _draw_peace()

    def _button(self, words: str, ids: list[int], testid: str, about: str) -> Element:
        made = button(
            words,
            lambda: attempt(lambda: self._acknowledge(ids)),
            classes="small push",
            testid=testid,
            aria_label=f"{words}: {about}",
        )
        made.set_visibility(self._visit.may_operate)
        return made

    async def _acknowledge(self, ids: list[int]) -> str:
        actor = await self._visit.actor()
        self._has_acted = True
        number = await acknowledge_alarms(self._visit.house.db, ids, actor=actor)
        return f"{count(number, 'alarm')} acknowledged" if number else "Somebody was quicker"


class _Line:
    """One open alarm."""

    def __init__(self, alarm: AlarmView, draw_button: Callable[[str, list[int], str, str], Element]) -> None:
        with tag("li", "alarm", data_testid=f"alarm-{alarm.id}") as self._line:
            self._chip = Chip()
            with tag("div", "what"):
                self._sentence = text("a", "", href=alarm.place)
                self._remedy = text("span", "", "sub")
                with tag("span", "sub details"):
                    tag("span", "", ALARM_WORDS[alarm.kind])
                    with tag("span"):
                        tag("span", "", "opened ")
                        Moment().show(alarm.opened_at)
                    self._by = text("span")
            about = f"{ALARM_WORDS[alarm.kind]}, {alarm.sentence}"
            self._button = draw_button("Acknowledge", [alarm.id], f"alarm-acknowledge-{alarm.id}", about)
        self._may_act = self._button.visible

    def show(self, alarm: AlarmView) -> None:
        """Shows how it stands."""
        self._chip.show(alarm.severity, SEVERITY_WORDS[alarm.severity])
        self._sentence.say(alarm.sentence)
        self._remedy.say(alarm.remedy)
        self._by.say(f"acknowledged by {person(alarm.acknowledged_by)}" if alarm.acknowledged_by else "")
        state = "acknowledged" if alarm.acknowledged_by else "open"
        if self._line.props.get("data-status") != state:
            self._line.props["data-status"] = state
            self._line.update()
        self._button.set_visibility(self._may_act and not alarm.acknowledged_by)


def _draw_peace() -> None:
    with tag("div", "card"), tag("div", "empty"):
        tag("span", "title", "All is well")
        tag(
            "p",
            "",
            "Failed machines, long lines, spent budgets and a server in trouble ring here, and by the bell above.",
        )


def _in_order(snapshot: Snapshot) -> list[AlarmView]:
    """The gravest first; a pool stands where its gravest alarm does."""
    return sorted(snapshot.alarms.values(), key=lambda alarm: (-alarm.severity.rank, alarm.opened_at, alarm.id))


def _subtitle(snapshot: Snapshot) -> str:
    if not snapshot.alarms:
        return "Nothing needs to be looked at"
    return f"{count(len(snapshot.alarms), 'alarm')} open, {snapshot.ringing} not acknowledged"
