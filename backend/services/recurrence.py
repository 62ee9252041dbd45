"""When the classes of a schedule are: wall-clock times on weekdays, in a time zone, right across daylight saving.

Pure: no database, no clock. A wall-clock time that happens twice means the first; one that is skipped means the moment
at which the clock jumps. (So the order of wall-clock times is kept, and no class ends before it begins.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from dateutil.rrule import WEEKLY, rrule

from backend.errors import InvalidInput

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
# A zone's offset is at most a day, and so is a class.
_MARGIN = timedelta(days=3)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Classes from ``starts`` to ``stops`` on the weekdays (0 is Monday) from ``first_on`` to ``last_on``.

    Dates in ``skips`` are left out. A ``stops`` at or before ``starts`` is on the next day.
    """

    zone: str
    weekdays: tuple[int, ...]
    starts: time
    stops: time
    first_on: date
    last_on: date | None = None
    skips: frozenset[date] = frozenset()


@dataclass(frozen=True, slots=True)
class Window:
    """One class. Both in UTC."""

    starts_at: datetime
    stops_at: datetime


def list_windows(rule: Recurrence, after: datetime, before: datetime) -> list[Window]:
    """The classes that begin at or after ``after`` and before ``before``, in order.

    Raises:
        InvalidInput: the zone is unknown.
    """
    zone = find_zone(rule.zone)
    days = _list_days(rule, _shifted(after, -_MARGIN), _shifted(before, _MARGIN))
    found = (_window(rule, zone, day) for day in days)
    return [each for each in found if each is not None and after <= each.starts_at < before]


def find_next(rule: Recurrence, after: datetime) -> Window | None:
    """The first class that begins at or after ``after``; None if there is none within the next two years."""
    step = after
    for days in (14, 90, 626):
        until = _shifted(step, timedelta(days=days))
        if found := list_windows(rule, after, until):
            return found[0]
        step = until
    return None


def to_utc(zone: ZoneInfo, day: date, at: time) -> datetime:
    """The moment at which clocks in this zone show this; the moment of the jump where they skip it."""
    local = datetime.combine(day, at, tzinfo=zone)
    early, late = local.replace(fold=1).astimezone(UTC), local.astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return late
    # Skipped: the jump lies between what the later and what the earlier offset make of it.
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        early, late = (middle, late) if middle.astimezone(zone).utcoffset() == before else (early, middle)
    return late.replace(microsecond=0)


@cache
def list_zones() -> tuple[str, ...]:
    """The names of time zones that people choose from."""
    return tuple(sorted(name for name in available_timezones() if "/" in name or name == "UTC"))


def find_zone(name: str) -> ZoneInfo:
    """The time zone of this name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in list_zones():
        raise InvalidInput(f"There is no time zone '{name[:60]}'; one is named like Europe/Berlin.")
    return ZoneInfo(name)


def read_dates(typed: str, *, most: int) -> frozenset[date]:
    """The dates that somebody typed, one a line.

    Raises:
        InvalidInput: a line is none, or there are too many.
    """
    found = set()
    for number, line in enumerate(typed.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.add(date.fromisoformat(line.strip()))
        except ValueError:
            raise InvalidInput(f"Line {number} is no date such as 2027-05-01: '{line.strip()[:40]}'.") from None
    if len(found) > most:
        raise InvalidInput(f"At most {most} dates can be skipped.")
    return frozenset(found)


def describe_days(weekdays: Collection[int]) -> str:
    """``Mon to Fri``, ``Mon, Wed``, ``every day``."""
    days = sorted(weekdays)
    names = [WEEKDAYS[day].capitalize() for day in days]
    if len(days) == len(WEEKDAYS):
        return "every day"
    if len(days) > 2 and days[-1] - days[0] == len(days) - 1:
        return f"{names[0]} to {names[-1]}"
    return ", ".join(names)


def _list_days(rule: Recurrence, after: datetime, before: datetime) -> Iterator[date]:
    first = max(rule.first_on, after.date())
    last = min(rule.last_on or date.max, before.date())
    if first > last or not rule.weekdays:
        return
    midnight = datetime.combine(first, time())
    for day in rrule(WEEKLY, dtstart=midnight, until=datetime.combine(last, time()), byweekday=rule.weekdays):
        if day.date() not in rule.skips:
            yield day.date()


def _window(rule: Recurrence, zone: ZoneInfo, day: date) -> Window | None:
    """None for a class that lies whole in the hour that is skipped, or on a day that the zone skipped."""
    starts_at = to_utc(zone, day, rule.starts)
    stops_at = to_utc(zone, day if rule.stops > rule.starts else day + _DAY, rule.stops)
    return Window(starts_at, stops_at) if starts_at < stops_at else None


def _shifted(at: datetime, by: timedelta) -> datetime:
    try:
        return at + by
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if by > timedelta() else datetime.min.replace(tzinfo=UTC)
