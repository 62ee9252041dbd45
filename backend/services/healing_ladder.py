"""The ladder of healing. Pure: from what was tried on a machine, the pool's figures and the time to what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.services.healing_limits import HealingLimits
from backend.states import RepairFault, RepairOutcome, Rung

# The last rung is not tried for ever on one machine: then somebody has to look.
LAST_TRIES = 3
# Pauses double this often at most.
_DOUBLINGS = 6
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Case:
    """A machine out of order. ``failed_at``: the change of status; ``is_heard``: its agent answers.

    ``is_whole``: it was made, once; ``must_go``: nothing but another machine helps; ``is_kept``: its seat moved on
    without it, and what is on it stays; ``is_ours``: it may be destroyed, and another launched.
    """

    failed_at: datetime
    is_heard: bool = False
    is_whole: bool = True
    must_go: bool = False
    is_kept: bool = False
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was tried on it and has ended."""

    rung: Rung
    began_at: datetime
    ended_at: datetime
    outcome: RepairOutcome


@dataclass(frozen=True, slots=True)
class Next:
    """What comes next: a rung, from ``at`` on; without one, a person has to do something, and ``why`` says what."""

    rung: Rung | None
    at: datetime
    is_last: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A last rung that has ended somewhere in the pool: its way to fail, or None for a success."""

    ended_at: datetime
    fault: RepairFault | None


def list_rungs(case: Case, limits: HealingLimits) -> list[Rung]:
    """The rungs that make sense for a machine, the mildest first."""
    may = {
        Rung.RESTART: case.is_heard and case.is_whole and not case.must_go and not case.is_kept,
        Rung.REBOOT: case.is_whole and not case.must_go and not case.is_kept,
        Rung.REPLACE: case.is_ours,
    }
    return [rung for rung in Rung if may[rung] and limits.deadline_of(rung)]


def find_next(case: Case, attempts: Sequence[Attempt], limits: HealingLimits) -> Next:
    """The next rung of a machine. ``attempts``: the newest first.

    Who was mended and fails again soon goes on up the ladder; the last rung is tried again, each time later.
    """
    rungs = list_rungs(case, limits)
    if not rungs or limits.at_once < 1:
        return Next(None, case.failed_at, why="nothing more is tried by itself in this pool")
    recent = _list_recent(case, attempts, limits)
    tried = max((list(Rung).index(each.rung) for each in recent), default=-1)
    above = [rung for rung in rungs if list(Rung).index(rung) > tried]
    rung = above[0] if above else rungs[-1]
    is_last = rung is rungs[-1]
    lasts = sum(each.rung is rung for each in recent)
    if lasts >= LAST_TRIES:
        return Next(None, case.failed_at, why=f"{LAST_TRIES} times a {rung} did not help: somebody has to look at it")
    earliest = case.failed_at if case.is_kept else case.failed_at + timedelta(seconds=limits.after_s)
    if recent:
        pause = timedelta(seconds=limits.pause_s * 2 ** min(lasts, _DOUBLINGS))
        # What goes on up the ladder waited long enough for this rung to help.
        earliest = max(recent[0].ended_at + pause, case.failed_at)
    return Next(rung, earliest, is_last)


def find_room(
    open_now: int, began: Sequence[datetime], limits: HealingLimits, at: datetime
) -> tuple[int, datetime | None]:
    """How many attempts may begin in the pool now; with none, when the hour lets the next one, if it is the hour."""
    within = sorted(each for each in began if each > at - HOUR)
    side_by_side, this_hour = int(limits.at_once) - open_now, int(limits.per_hour) - len(within)
    if this_hour <= 0 and side_by_side > 0 and limits.per_hour >= 1:
        return 0, within[-int(limits.per_hour)] + HOUR
    return max(0, min(side_by_side, this_hour)), None


def find_alike(ended: Sequence[Ended], limits: HealingLimits) -> RepairFault | None:
    """In which way too many last rungs have failed since one helped, if they have. ``ended``: the newest first."""
    counts: dict[RepairFault, int] = {}
    for each in ended:
        if each.fault is None:
            break
        counts[each.fault] = counts.get(each.fault, 0) + 1
    worst = max(counts, key=lambda fault: counts[fault], default=None)
    return worst if worst is not None and counts[worst] >= limits.breaker_failures else None


def find_trial(trials: int, limits: HealingLimits, at: datetime) -> datetime:
    """When the open breaker of a pool lets one machine be tried, after so many trials that failed."""
    return at + timedelta(seconds=limits.breaker_s * 2 ** min(trials, _DOUBLINGS))


def _list_recent(case: Case, attempts: Sequence[Attempt], limits: HealingLimits) -> list[Attempt]:
    """The attempts that count: those of this very illness, and those on a machine that was mended a moment ago."""
    memory = timedelta(seconds=limits.memory_s)
    recent: list[Attempt] = []
    began = case.failed_at
    for each in attempts:
        if each.ended_at < began - memory or each.outcome is RepairOutcome.OVERTAKEN:
            break
        recent.append(each)
        began = min(began, each.began_at)
    return recent
