"""The rehearsal of a class: what it needs, how each machine does, how the arrivals went, and the verdict."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.errors import InvalidInput
from backend.live.changes import ChangeSet, Snapshot
from backend.services.past_classes import PastClass, find_last_class
from backend.services.recurrence import find_zone, list_zones
from backend.services.rehearsal_need import MAX_PEOPLE, Expected
from backend.services.rehearsals import RehearsalView, end_rehearsal, find_last_rehearsal, start_rehearsal
from backend.services.views import PoolView
from backend.states import RehearsalStatus
from backend.tasks.rehearser import rules_of
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.forms import Values, form
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.pages.pool_found import find_pool
from lablink_ui.pages.rehearsal_parts import ArrivalsPart, NeedPart, VerdictPart
from lablink_ui.pages.schedule_form import OWN_ZONE
from lablink_ui.parts import Field, button, link_button, tag
from lablink_ui.rows import rehearsed_row
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login

_COLUMNS = (
    Column("machine", "Machine", "link"),
    Column("state", "Rehearsal", "chip", wrap=True),
    Column("connection", "Connection", wide=1, wrap=True),
    Column("said", "The check said", wide=1, wrap=True),
)
_SAYS = (
    "Robots try every machine that is up: claim it, open its connection, run the pool's check command, give it back. "
    "People come first: a robot takes free machines alone, a few at a time, and gives way to whoever waits."
)
_END = "Robots give their machines back. What was found so far stays here; there is no verdict."


@page_at("/admin/pools/{name}/rehearsal")
async def rehearsal(request: Request, name: str) -> Response | None:
    """The page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    pool = await find_pool(visit, name)
    if pool is None:
        return None
    last = await find_last_class(visit.house.db, pool.id)
    subtitle = "The evening before: does everything work, and are there enough machines?"
    with admin_frame(f"Rehearsal of {name}", active="pools", user=visit.admin.name, subtitle=subtitle) as frame:
        with frame.buttons:
            link_button("Back to the pool", f"/admin/pools/{name}")
        await _Page(visit, pool, frame, last).follow()
    return None


class _Page:
    def __init__(self, visit: Visit, pool: PoolView, frame: Frame, last: PastClass | None) -> None:
        self._visit, self._pool, self._frame = visit, pool, frame
        self._shown: RehearsalView | None = None
        self._verdict = VerdictPart()
        with tag("div", "grid2"):
            self._draw_form(last)
            with tag("div", "stack") as self._parts:
                self._need, self._arrivals = NeedPart(), ArrivalsPart()
        with tag("section", "section", aria_label="Machines") as self._machines:
            self._table = LiveTable(
                "Machines",
                _COLUMNS,
                empty=Empty("No machine was up", "Launch one, and rehearse again.", "Launch machines",
                            f"/admin/create?pool={pool.name}"),
                searchable=False,
            )  # fmt: skip
        for part in (self._parts, self._machines):
            part.set_visibility(False)
        self._reader = Reader(self._read)

    async def follow(self) -> None:
        """Keeps it true while the page is open."""

        def change(_: Snapshot, changes: ChangeSet) -> None:
            seen = self._shown.id if self._shown else None
            if changes.touches("rehearsals", self._pool.id) or changes.touches("rehearsal_machines", seen):
                self._reader.ask()

        await self._visit.follow(self._frame, start=lambda _: self._reader.ask(), on_changes=change)

    def _draw_form(self, last: PastClass | None) -> None:
        if not self._visit.may_operate:
            tag("p", "note", f"As {self._visit.admin.role} you may look. Operators and admins rehearse.")
            return
        with form("Rehearse a class", aria_label="Rehearse a class") as card:
            tag("p", "sub", _SAYS)
            with tag("div", "fields"):
                _draw_fields(self._visit.house.db.now(), last)
            with tag("fieldset", "days"):
                tag("legend", "sr", "Arrivals")
                with tag("label", "", for_="rehearsal-replay"):
                    replay = "rehearsal-replay"
                    tag("input", type="checkbox", id=replay, name="replay", data_testid=replay, checked=True)
                    tag("span", "", "Replay the arrivals with simulated machines and people")
            card.finish("Rehearse", testid="rehearsal-submit", tone="primary")
        card.on_send(self._start)
        ui.timer(0.1, lambda: ui.run_javascript(OWN_ZONE), once=True)
        self._end = button("Break off", self._ask_to_end, classes="danger start", testid="rehearsal-end")
        self._end.move(card.element)
        self._end.set_visibility(False)

    async def _start(self, values: Values) -> str:
        house, expected = self._visit.house, _read_expected(values)
        await start_rehearsal(
            house.db,
            self._pool.name,
            expected,
            rules_of(house.settings),
            with_arrivals="replay" in values,
            actor=await self._visit.actor(),
        )
        return "The rehearsal begins"

    async def _ask_to_end(self) -> None:
        if self._shown and await self._frame.ask.ask("Break the rehearsal off?", _END, verb="Break off"):
            await attempt(self._break_off)

    async def _break_off(self) -> str:
        assert self._shown
        await end_rehearsal(self._visit.house.db, self._shown.id, actor=await self._visit.actor())
        return "The rehearsal was broken off"

    async def _read(self) -> None:
        found = await find_last_rehearsal(self._visit.house.db, self._pool.id)
        self._verdict.show(found)
        if found is None:
            self._table.show([])
            return
        is_first, self._shown = self._shown is None or self._shown.id != found.id, found
        for part in (self._parts, self._machines):
            part.set_visibility(True)
        if self._visit.may_operate:
            self._end.set_visibility(found.status is RehearsalStatus.RUNNING)
        self._need.show(found)
        self._arrivals.show(found)
        rows = [rehearsed_row(number, machine) for number, machine in enumerate(found.machines)]
        self._table.show(rows, anew=is_first)


def _draw_fields(now: datetime, last: PastClass | None) -> None:
    """As many as came to the last class, and over the same time, to begin with."""
    Field(
        "People expected",
        name="people",
        kind="number",
        testid="rehearsal-people",
        value=str(last.people if last else 30),
        min=1,
        max=MAX_PEOPLE,
    )
    Field(
        "They arrive over, minutes",
        name="over",
        kind="number",
        testid="rehearsal-over",
        value=str(-(-last.within_s // 60) if last else 10),
        min=0,
        max=1_440,
        step="any",
    )
    tomorrow = datetime.combine((now + timedelta(days=1)).date(), time(9), UTC)
    Field("Day", name="day", kind="date", testid="rehearsal-day", value=f"{tomorrow:%Y-%m-%d}", required=True)
    Field("The first come at", name="starts", kind="time", testid="rehearsal-starts", value="09:00", required=True)
    zones = {zone: zone for zone in list_zones()}
    Field("Time zone", name="zone", kind="select", testid="rehearsal-zone", value="UTC", options=zones)


def _read_expected(values: Values) -> Expected:
    zone = values.get("zone", "")
    find_zone(zone)
    try:
        people, over_s = int(values.get("people", "")), round(60 * float(values.get("over", "")))
        starts_at = datetime.fromisoformat(f"{values.get('day', '')}T{values.get('starts', '')}")
    except (ValueError, OverflowError):
        raise InvalidInput("Fill in numbers, a day such as 2027-01-11, and a time such as 09:00.") from None
    return Expected(people, over_s, starts_at.replace(tzinfo=ZoneInfo(zone)), zone)
