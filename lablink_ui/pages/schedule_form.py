"""The form for a new schedule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, time

from nicegui import ui

from backend.errors import InvalidInput
from backend.services.recurrence import WEEKDAYS, list_zones, read_dates
from backend.services.schedules import MAX_NAME, MAX_SKIPS, ScheduleSpec, create_schedule
from lablink_ui.forms import Values, form
from lablink_ui.parts import Field, tag
from lablink_ui.visits import Visit

_WORKDAYS = 5
# The reader's own zone, unless another one was chosen already.
OWN_ZONE = """{ const zone = document.getElementById("zone"), own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone && zone.value === "UTC" && [...zone.options].some((each) => each.value === own)) zone.value = own; }"""


def draw_schedule_form(visit: Visit, pools: Sequence[str]) -> None:
    """Draws it for whoever may use it."""
    if not visit.may_operate:
        tag("p", "note", f"As {visit.admin.role} you may look. Operators and admins make schedules.")
        return
    with form("New schedule", aria_label="New schedule") as card:
        with tag("div", "fields"):
            _draw_what(pools)
            _draw_when(visit.house.db.now().date())
        _draw_days()
        Field(
            "Days without a class",
            name="skips",
            kind="area",
            testid="schedule-skips",
            hint="Holidays: one date a line, such as 2027-05-01",
        )
        card.finish("Make schedule", testid="schedule-submit", tone="primary")

    async def make(values: Values) -> str:
        actor = await visit.actor()
        made = await create_schedule(visit.house.db, values.get("pool", ""), _read(values), actor=actor)
        return f"{made.name} was made"

    card.on_send(make)
    ui.timer(0.1, lambda: ui.run_javascript(OWN_ZONE), once=True)


def _draw_what(pools: Sequence[str]) -> None:
    Field("Name", name="name", testid="schedule-name", hint="Such as Genomics 101", required=True, maxlength=MAX_NAME)
    first = pools[0] if pools else ""
    Field(
        "Pool", name="pool", kind="select", testid="schedule-pool", value=first, options={pool: pool for pool in pools}
    )
    Field("Machines", name="count", kind="number", testid="schedule-count", value="10", min=1, max=1000, required=True)
    Field(
        "Caught up within minutes",
        name="catch_up",
        kind="number",
        testid="schedule-catch-up",
        value="30",
        min=0,
        max=1440,
        hint="Should the server be down when it begins; later it is reported as missed",
    )


def _draw_when(today: date) -> None:
    Field("Begins", name="starts", kind="time", testid="schedule-starts", value="09:00", required=True)
    Field(
        "Ends",
        name="stops",
        kind="time",
        testid="schedule-stops",
        value="18:00",
        required=True,
        hint="At or before the beginning: on the next day",
    )
    zones = {zone: zone for zone in list_zones()}
    Field("Time zone", name="zone", kind="select", testid="schedule-zone", value="UTC", options=zones)
    Field("First day", name="first_on", kind="date", testid="schedule-first", value=today.isoformat(), required=True)
    Field("Last day", name="last_on", kind="date", testid="schedule-last", hint="Empty: goes on")


def _draw_days() -> None:
    with tag("fieldset", "days"):
        tag("legend", "", "On")
        for number, day in enumerate(WEEKDAYS):
            with tag("label", "", for_=f"day-{day}"):
                is_on = number < _WORKDAYS
                tag("input", type="checkbox", id=f"day-{day}", name=day, data_testid=f"schedule-{day}", checked=is_on)
                tag("span", "", day.capitalize())


def _read(values: Values) -> ScheduleSpec:
    return ScheduleSpec(
        name=values.get("name", ""),
        zone=values.get("zone", ""),
        weekdays=tuple(number for number, day in enumerate(WEEKDAYS) if day in values),
        starts=_time(values.get("starts", "")),
        stops=_time(values.get("stops", "")),
        first_on=_date(values.get("first_on", ""), "first day"),
        last_on=_date(values["last_on"], "last day") if values.get("last_on") else None,
        skips=read_dates(values.get("skips", ""), most=MAX_SKIPS),
        count=_whole(values.get("count", ""), "number of machines"),
        catch_up_s=60 * _whole(values.get("catch_up", ""), "number of minutes"),
    )


def _time(typed: str) -> time:
    try:
        return time.fromisoformat(typed).replace(second=0, microsecond=0, tzinfo=None)
    except ValueError:
        raise InvalidInput("A class begins and ends at times such as 09:00.") from None


def _date(typed: str, what: str) -> date:
    try:
        return date.fromisoformat(typed)
    except ValueError:
        raise InvalidInput(f"The {what} must be a date, such as 2027-01-11.") from None


def _whole(typed: str, what: str) -> int:
    if not typed.strip().isdecimal() or len(typed) > 6:
        raise InvalidInput(f"The {what} must be a whole number.")
    return int(typed)
