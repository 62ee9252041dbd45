"""The ladder, as pure rules: whatever was tried, what comes next makes sense."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from backend.errors import InvalidInput
from backend.services.healing_ladder import (
    HOUR,
    LAST_TRIES,
    Attempt,
    Case,
    Ended,
    find_alike,
    find_next,
    find_room,
    find_trial,
    list_rungs,
)
from backend.services.healing_limits import OWN, HealingLimits
from backend.states import RepairFault, RepairOutcome, Rung

AT = datetime(2026, 9, 1, 9, 0, tzinfo=UTC)
LIMITS = HealingLimits()


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def test_whatever_befalls_a_machine_it_climbs_pauses_and_comes_to_an_end() -> None:
    luck = random.Random(20260901)
    for _ in range(300):
        limits = HealingLimits(
            restart_s=luck.choice((0, 60)),
            reboot_s=luck.choice((0, 300)),
            replace_s=luck.choice((0, 900)),
            pause_s=luck.choice((0, 30, 300)),
        )
        at, tried = AT, []
        case = Case(at, is_heard=luck.random() < 0.5, must_go=luck.random() < 0.2, is_ours=luck.random() < 0.7)
        rungs = list_rungs(case, limits)
        for _ in range(20):
            step = find_next(case, tried, limits)
            if step.rung is None:
                break
            # Never below what was tried already, nor before its time, nor on a rung that makes no sense.
            assert step.rung in rungs
            assert step.is_last == (step.rung is rungs[-1])
            assert all(list(Rung).index(step.rung) >= list(Rung).index(each.rung) for each in tried)
            assert step.at >= case.failed_at
            if tried:
                assert step.at >= tried[0].ended_at + s(limits.pause_s)
            at = step.at + s(luck.randint(1, 900))
            # Each time it fails anew, at the very moment at which the attempt is given up.
            case = Case(at, case.is_heard, must_go=case.must_go, is_ours=case.is_ours)
            tried.insert(0, Attempt(step.rung, step.at, at, RepairOutcome.FAILED))
        else:
            pytest.fail("it never comes to an end")
        assert step.why
        assert len(tried) == (len(rungs) - 1 + LAST_TRIES if rungs else 0)


def test_who_was_mended_long_ago_begins_at_the_foot_again_and_who_was_just_now_goes_on() -> None:
    helped = [Attempt(Rung.RESTART, AT - s(400), AT - s(300), RepairOutcome.SUCCEEDED)]
    assert find_next(Case(AT, is_heard=True), helped, LIMITS).rung is Rung.REBOOT
    later = Case(AT + s(LIMITS.memory_s), is_heard=True)
    assert find_next(later, helped, LIMITS).rung is Rung.RESTART


def test_what_is_kept_for_somebody_is_never_touched_and_what_cannot_be_cleaned_never_rebooted() -> None:
    assert list_rungs(Case(AT, is_heard=True, is_kept=True), LIMITS) == [Rung.REPLACE]
    assert list_rungs(Case(AT, is_heard=True, must_go=True), LIMITS) == [Rung.REPLACE]
    assert list_rungs(Case(AT, is_whole=False), LIMITS) == [Rung.REPLACE]
    assert list_rungs(Case(AT, is_ours=False), LIMITS) == [Rung.REBOOT]


def test_the_budget_holds_side_by_side_and_by_the_hour() -> None:
    limits = HealingLimits(at_once=3, per_hour=5)
    assert find_room(0, [], limits, AT) == (3, None)
    assert find_room(2, [AT - s(10)] * 2, limits, AT) == (1, None)
    assert find_room(3, [], limits, AT) == (0, None)
    began = [AT - s(minutes * 60) for minutes in (50, 40, 30, 20)]
    assert find_room(0, began, limits, AT) == (1, None)
    began.append(AT - s(600))
    assert find_room(0, began, limits, AT) == (0, AT - s(50 * 60) + HOUR)
    assert find_room(0, began, HealingLimits(at_once=0), AT)[0] == 0


def test_only_what_fails_alike_since_something_helped_opens_the_breaker() -> None:
    limits = HealingLimits(breaker_failures=3)
    made, well = Ended(AT, RepairFault.NOT_MADE), Ended(AT, RepairFault.NOT_WELL)
    assert find_alike([made, made], limits) is None
    assert find_alike([made, well, made, well], limits) is None
    assert find_alike([made, well, made, made], limits) is RepairFault.NOT_MADE
    assert find_alike([made, made, Ended(AT, None), made], limits) is None
    pauses = [find_trial(trials, limits, AT) - AT for trials in range(12)]
    assert pauses == sorted(pauses)
    assert pauses[1] == 2 * pauses[0]
    assert pauses[-1] == pauses[-2]


@pytest.mark.parametrize("words", ["at_once=-1", "reboots=3", "per_hour", "breaker_failures=0"])
def test_figures_of_a_pool_that_make_no_sense_are_refused(words: str) -> None:
    with pytest.raises(InvalidInput, match="healing"):
        OWN.read(words)
