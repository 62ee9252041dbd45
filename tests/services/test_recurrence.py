"""Classes by wall-clock time: the same hour on the wall all year, over every zone, whatever its clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import InvalidInput
from backend.services.recurrence import (
    Recurrence,
    Window,
    describe_days,
    find_next,
    list_windows,
    list_zones,
    to_utc,
)

# Clocks change at night.
TIMES = st.builds(time, st.integers(0, 3) | st.integers(0, 23), st.integers(0, 59))
MOMENTS = st.integers(31_536_000, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
RULES = st.builds(
    Recurrence,
    zone=st.sampled_from(list_zones()),
    weekdays=st.lists(st.integers(0, 6), min_size=1, unique=True).map(lambda days: tuple(sorted(days))),
    starts=TIMES,
    stops=TIMES,
    first_on=st.just(date(1970, 1, 1)) | st.dates(date(1970, 1, 1), date(2098, 1, 1)),
    last_on=st.none() | st.none() | st.dates(date(1970, 1, 1), date(2099, 1, 1)),
    skips=st.frozensets(st.dates(date(1970, 1, 1), date(2099, 1, 1)), max_size=3),
)
EXAMPLES = settings(max_examples=200, deadline=None, database=None, derandomize=True)
NINE_TO_SIX = Recurrence("Europe/Berlin", (0, 1, 2, 3, 4), time(9), time(18), date(2026, 1, 1))


def local(at: datetime, zone: str) -> datetime:
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@EXAMPLES
@given(rule=RULES, after=MOMENTS, days=st.integers(1, 400))
def test_every_class_begins_on_its_weekday_at_its_time_or_when_the_clock_jumps_over_it(rule, after, days) -> None:
    zone = ZoneInfo(rule.zone)
    for window in list_windows(rule, after, after + timedelta(days=days)):
        begins = local(window.starts_at, rule.zone)
        if begins.time() != rule.starts:
            # Skipped: a second before, the clock showed less; and nothing between was ever shown.
            before = local(window.starts_at - timedelta(seconds=1), rule.zone)
            wanted = datetime.combine(before.date(), rule.starts)
            wanted = wanted if wanted > before else wanted + timedelta(days=1)
            assert before < wanted <= begins
            begins = wanted
        else:
            # Shown twice: it is the first time.
            assert window.starts_at == begins.replace(tzinfo=zone, fold=0).astimezone(UTC)
        assert begins.weekday() in rule.weekdays
        assert begins.date() not in rule.skips
        assert rule.first_on <= begins.date() <= (rule.last_on or date.max)


@EXAMPLES
@given(rule=RULES, after=MOMENTS, days=st.integers(1, 400))
def test_classes_are_in_order_last_at_most_a_day_and_an_hour_or_two_and_never_end_before_they_begin(
    rule, after, days
) -> None:
    windows = list_windows(rule, after, after + timedelta(days=days))
    assert all(each.starts_at < each.stops_at <= each.starts_at + timedelta(hours=51) for each in windows)
    assert [each.starts_at for each in windows] == sorted({each.starts_at for each in windows})


@EXAMPLES
@given(rule=RULES, after=MOMENTS, days=st.integers(2, 300), share=st.floats(0, 1))
def test_a_stretch_of_time_holds_what_its_two_parts_hold(rule, after, days, share) -> None:
    whole = timedelta(days=days)
    cut, before = after + whole * share, after + whole
    assert list_windows(rule, after, before) == list_windows(rule, after, cut) + list_windows(rule, cut, before)


@EXAMPLES
@given(rule=RULES, after=MOMENTS)
def test_the_next_class_is_the_first_of_those_to_come(rule, after) -> None:
    windows = list_windows(rule, after, after + timedelta(days=730))
    assert find_next(rule, after) == (windows[0] if windows else None)


@EXAMPLES
@given(
    zone=st.sampled_from(list_zones()).map(ZoneInfo), day=st.dates(date(1971, 1, 1), date(2098, 1, 1)), at=TIMES,
    later=TIMES,
)  # fmt: skip
def test_the_order_of_wall_clock_times_is_kept(zone, day, at, later) -> None:
    first, second = sorted((at, later))
    assert to_utc(zone, day, first) <= to_utc(zone, day, second)


@pytest.mark.parametrize(
    ("zone", "starts", "stops", "day", "begins", "ends"),
    [
        # 02:00 to 03:00 does not exist in Berlin that night.
        ("Europe/Berlin", time(2, 30), time(4), date(2026, 3, 29), "2026-03-29T01:00", "2026-03-29T02:00"),
        # 02:30 happens twice in Berlin that night: the first, in summer time.
        ("Europe/Berlin", time(2, 30), time(4), date(2026, 10, 25), "2026-10-25T00:30", "2026-10-25T03:00"),
        # A night class through the change is an hour shorter than the wall says.
        ("America/New_York", time(22), time(6), date(2026, 3, 7), "2026-03-08T03:00", "2026-03-08T10:00"),
        # Half an hour of daylight saving.
        ("Australia/Lord_Howe", time(2, 15), time(5), date(2026, 10, 4), "2026-10-03T15:30", "2026-10-03T18:00"),
    ],
)
def test_nights_on_which_clocks_change(zone, starts, stops, day, begins, ends) -> None:
    rule = Recurrence(zone, tuple(range(7)), starts, stops, day, day)
    (window,) = list_windows(rule, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert window == Window(*(datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (begins, ends)))


def test_a_class_that_lies_in_the_hour_that_is_skipped_is_left_out_and_so_is_a_day_that_a_zone_never_had() -> None:
    year = (datetime(2011, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    hour = Recurrence("Europe/Berlin", (6,), time(2, 10), time(2, 50), date(2026, 3, 29), date(2026, 3, 29))
    samoa = Recurrence("Pacific/Apia", (4,), time(9), time(18), date(2011, 12, 30), date(2011, 12, 30))
    assert list_windows(hour, *year) == list_windows(samoa, *year) == []


def test_nine_oclock_is_nine_oclock_in_summer_and_winter_and_holidays_are_skipped() -> None:
    rule = Recurrence(**{**{name: getattr(NINE_TO_SIX, name) for name in NINE_TO_SIX.__slots__},
                         "skips": frozenset({date(2026, 4, 3), date(2026, 4, 6)})})  # fmt: skip
    year = list_windows(rule, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
    assert {local(each.starts_at, rule.zone).time() for each in year} == {time(9)}
    assert {each.starts_at.hour for each in year} == {7, 8}
    assert len(year) == 261 - 2


def test_a_zone_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match="Europe/Berlin"):
        find_next(
            Recurrence("Mars/Olympus", (0,), time(9), time(10), date(2026, 1, 1)), datetime(2026, 1, 1, tzinfo=UTC)
        )


@pytest.mark.parametrize(
    ("days", "said"), [((0, 1, 2, 3, 4), "Mon to Fri"), ((0, 2), "Mon, Wed"), (range(7), "every day"), ((6,), "Sun")]
)
def test_days_are_said_as_people_say_them(days, said) -> None:
    assert describe_days(days) == said
