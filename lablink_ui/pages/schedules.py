"""The schedules: a week of classes, what makes them, and what the pools may cost."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fastapi import Request
from fastapi.responses import Response

from backend.live.changes import ChangeSet, Snapshot
from backend.services.pools import list_pools
from backend.services.schedule_runs import extend_run
from backend.services.schedules import (
    RunView,
    ScheduleView,
    list_calendar,
    list_schedules,
    pause_schedule,
    remove_schedule,
)
from backend.states import RunStatus
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.pages.budgets import BudgetsPart
from lablink_ui.pages.schedule_form import draw_schedule_form
from lablink_ui.parts import button, link_button, tag
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import RUN_WORDS, count, sentence

_DAYS = 7
_DAY = timedelta(days=1)
_TABLES = ("schedules", "schedule_runs", "budgets")
_REMOVE = "No further class comes of it. One that runs now goes on, and is stopped at its time."


@page_at("/admin/schedules")
async def schedules(request: Request) -> Response | None:
    """The schedules page; ``?week=2027-01-11`` shows the week of that day."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    pools = [pool.name for pool in await list_pools(visit.house.db) if not pool.is_rehearsal]
    subtitle = "Machines are up when a class begins, and given back after it"
    with admin_frame("Schedules", active="schedules", user=visit.admin.name, subtitle=subtitle) as frame:
        week = _Week(visit, frame, request.query_params.get("week", ""))
        with tag("section", "card pad", aria_label="Schedules"):
            tag("h2", "", "Schedules")
            listed = _List(visit, frame)
        with tag("div", "grid2"):
            draw_schedule_form(visit, pools)
            budgets = BudgetsPart(visit, frame, pools)

        async def read() -> None:
            await week.read()
            listed.show(await list_schedules(visit.house.db))
            await budgets.read()

        reader = Reader(read)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.pools or changes.vms or any(changes.touches(table) for table in _TABLES):
                reader.ask()

        await visit.follow(frame, start=lambda _: reader.ask(), on_changes=change)
    return None


class _Week:
    """Seven days side by side; each class by the clocks of its own zone."""

    def __init__(self, visit: Visit, frame: Frame, asked: str) -> None:
        self._visit, self._today = visit, visit.house.db.now().date()
        self._first = _monday(asked, self._today)
        self._shown: list[RunView] | None = None
        with frame.buttons:
            link_button("Earlier", _at(self._first - _DAYS * _DAY))
            link_button("This week", "/admin/schedules")
            link_button("Later", _at(self._first + _DAYS * _DAY))
        with tag("section", "section", aria_label="Calendar"):
            last = self._first + (_DAYS - 1) * _DAY
            tag("h2", "", f"{self._first:%-d %B} to {last:%-d %B %Y}")
            self._box = tag("ol", "week", aria_busy="true", data_testid="calendar")

    async def read(self) -> None:
        """Reads the week and draws it, if it differs from what is shown."""
        begin = datetime.combine(self._first, time(), UTC)
        # A day more on both sides: a zone's Monday begins up to 14 hours before or after that of UTC.
        runs = await list_calendar(self._visit.house.db, begin - _DAY, begin + (_DAYS + 1) * _DAY)
        if runs == self._shown:
            return
        self._shown = runs
        self._box.props["aria-busy"] = "false"
        self._box.clear()
        with self._box:
            for day in (self._first + number * _DAY for number in range(_DAYS)):
                self._draw_day(day, [run for run in runs if _local(run.starts_at, run).date() == day])

    def _draw_day(self, day: date, runs: list[RunView]) -> None:
        is_today = day == self._today
        with tag("li", "day today" if is_today else "day", aria_current="date" if is_today else None):
            tag("h3", "", f"{day:%a %-d}")
            for run in runs:
                self._draw_run(run)
            if not runs:
                tag("span", "sub", "No class")

    def _draw_run(self, run: RunView) -> None:
        begins, ends = _local(run.starts_at, run), _local(run.stops_at, run)
        words, tone = RUN_WORDS[run.status]
        with tag("div", "class", data_testid=f"class-{run.schedule_id}-{begins:%Y-%m-%d}", data_status=run.status):
            tag("strong", "", run.schedule)
            tag("span", "", f"{begins:%H:%M} to {ends:%H:%M}")
            with tag("span", "sub details"):
                tag("span", "", run.zone)
                tag("a", "", run.pool, href=f"/admin/pools/{run.pool}")
                tag("span", "", count(run.count, "machine"))
            tag("span", f"chip {tone}", words)
            if run.note:
                tag("span", "sub", sentence(run.note) + ".")
            run_id = run.run_id
            if run_id is not None and run.status is RunStatus.RUNNING and self._visit.may_operate:
                button(
                    "An hour longer",
                    lambda: attempt(lambda: self._extend(run_id, run)),
                    classes="small",
                    testid=f"class-extend-{run_id}",
                    aria_label=f"An hour longer: {run.schedule}",
                )

    async def _extend(self, run_id: int, run: RunView) -> str:
        ends = await extend_run(self._visit.house.db, run_id, actor=await self._visit.actor())
        return f"{run.schedule} goes on until {_local(ends, run):%H:%M}"


class _List:
    """The schedules, each with what can be done about it."""

    def __init__(self, visit: Visit, frame: Frame) -> None:
        self._visit, self._frame = visit, frame
        self._shown: list[ScheduleView] | None = None
        self._box = tag("ul", "lines", aria_label="Schedules")

    def show(self, found: list[ScheduleView]) -> None:
        """Shows these, if they differ from those that are shown."""
        if found == self._shown:
            return
        self._shown = found
        self._box.clear()
        with self._box:
            for schedule in found:
                self._draw(schedule)
            if not found:
                tag("li", "sub", "None yet. Make the first below: its machines come up and go by themselves.")

    def _draw(self, schedule: ScheduleView) -> None:
        with tag("li", "", data_testid=f"schedule-{schedule.id}"):
            with tag("div", "what"):
                with tag("span", "row"):
                    tag("strong", "", schedule.name)
                    if schedule.is_paused:
                        tag("span", "chip idle", "Paused")
                with tag("span", "sub details"):
                    tag("a", "", schedule.pool, href=f"/admin/pools/{schedule.pool}")
                    tag("span", "", count(schedule.count, "machine"))
                    tag("span", "", schedule.times)
                    tag("span", "", _next(schedule))
            if self._visit.may_operate:
                with tag("div", "row"):
                    self._draw_verbs(schedule)

    def _draw_verbs(self, schedule: ScheduleView) -> None:
        verb = "Go on" if schedule.is_paused else "Pause"
        button(
            verb,
            lambda: attempt(lambda: self._pause(schedule)),
            classes="small",
            testid=f"schedule-pause-{schedule.id}",
            aria_label=f"{verb}: {schedule.name}",
        )
        button(
            "Remove",
            lambda: self._ask_to_remove(schedule),
            classes="small danger",
            testid=f"schedule-remove-{schedule.id}",
            aria_label=f"Remove: {schedule.name}",
        )

    async def _pause(self, schedule: ScheduleView) -> str:
        actor, is_paused = await self._visit.actor(), not schedule.is_paused
        await pause_schedule(self._visit.house.db, schedule.id, is_paused=is_paused, actor=actor)
        return f"{schedule.name} is paused" if is_paused else f"{schedule.name} goes on"

    async def _ask_to_remove(self, schedule: ScheduleView) -> None:
        if await self._frame.ask.ask(f"Remove {schedule.name}?", _REMOVE, verb="Remove"):
            await attempt(lambda: self._remove(schedule))

    async def _remove(self, schedule: ScheduleView) -> str:
        await remove_schedule(self._visit.house.db, schedule.id, actor=await self._visit.actor())
        return f"{schedule.name} was removed"


def _next(schedule: ScheduleView) -> str:
    if schedule.is_paused:
        return "no class while it is paused"
    if schedule.next is None:
        return "no further class"
    begins = schedule.next.starts_at.astimezone(ZoneInfo(schedule.rule.zone))
    return f"next {begins:%a %-d %B %H:%M}"


def _local(at: datetime, run: RunView) -> datetime:
    return at.astimezone(ZoneInfo(run.zone))


def _monday(asked: str, today: date) -> date:
    try:
        day = date.fromisoformat(asked)
    except ValueError:
        day = today
    # Far enough from both ends of the calendar that a week fits.
    day = min(max(day, date(2000, 1, 1)), date(2200, 1, 1))
    return day - day.weekday() * _DAY


def _at(day: date) -> str:
    return f"/admin/schedules?week={day}"
