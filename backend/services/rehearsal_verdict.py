"""The verdict of a rehearsal: go or no-go, with every reason and what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from backend.services.lead_times import ENOUGH
from backend.services.rehearsal_need import Need
from backend.services.views import PoolView
from backend.states import RehearsalStep, Verdict

# So many machines are named where several have the same fault.
_NAMED = 8
REPLAYED, NOT_REPLAYED, NOT_WANTED = "replayed", "failed", "off"


@dataclass(frozen=True, slots=True)
class RehearsedMachine:
    """How one machine did. ``is_over``: nothing more comes of it."""

    hostname: str
    step: RehearsalStep
    step_at: datetime
    connection: str | None
    said: str | None
    problem: str | None
    remedy: str | None
    is_over: bool

    @property
    def status(self) -> str:
        """``passed``, ``failed``, ``skipped``; while it is under way, its step."""
        if self.step is RehearsalStep.SKIPPED:
            return "skipped"
        if not self.is_over:
            return str(self.step)
        return "failed" if self.problem else "passed"


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence and its remedy; ``is_against`` the class, or good to know."""

    is_against: bool
    what: str
    remedy: str

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        return {"is_against": self.is_against, "what": self.what, "remedy": self.remedy}


def judge(
    pool: PoolView,
    need: Need,
    machines: Sequence[RehearsedMachine],
    arrivals: Mapping[str, Any],
    *,
    now: datetime,
    zone: str = "UTC",
) -> tuple[Verdict, list[Reason]]:
    """The verdict, and its reasons: those against the class first. Times are told by the clocks in ``zone``."""
    found = [*_of_need(pool, need, now, ZoneInfo(zone)), *_of_machines(pool, machines), *_of_arrivals(arrivals)]
    verdict = Verdict.NO_GO if any(each.is_against for each in found) else Verdict.GO
    return verdict, sorted(found, key=lambda each: not each.is_against)


def say_time(at: datetime, zone: ZoneInfo) -> str:
    """``Monday 11 January 08:55 CET``."""
    return f"{at.astimezone(zone):%A %-d %B %H:%M %Z}"


def _of_need(pool: PoolView, need: Need, now: datetime, zone: ZoneInfo) -> list[Reason]:
    found = []
    if need.obstacle:
        found.append(_against(need.obstacle, "Open the pool, or mend its budget, on the pages Pools and Schedules."))
    if need.needed > need.most:
        what = f"{need.needed} people are expected, and pool {pool.name} may have {need.most} machines."
        found.append(_against(what, f"Set its most machines to {need.needed}, or have people wait in line."))
    if need.last_class and need.last_class.people > need.needed:
        what = f"{need.last_class.people} people came to the last class, and {need.needed} are expected."
        found.append(_note(what, "Rehearse for more, if as many may come again."))
    if need.to_launch and need.launch_at and need.short_at:
        what = f"{_count(need.to_launch, 'machine')} {'is' if need.to_launch == 1 else 'are'} to be launched"
        if need.launch_at < now:
            late = f"{what}, and should have been by {say_time(need.launch_at, zone)}."
            found.append(
                _against(late, f"Launch now. From {say_time(need.short_at, zone)} on people may wait in line a while.")
            )
        else:
            found.append(_note(f"{what}.", f"Launch by {say_time(need.launch_at, zone)}, by hand or by a schedule."))
    if need.boots.measured < ENOUGH:
        so_far = _count(need.boots.measured, "boot") if need.boots.measured else "no boots"
        what = f"Measured so far in this pool: {so_far}. {need.boots.lead_s // 60} minutes are assumed."
        found.append(_note(what, f"Once {ENOUGH} were launched, it is known."))
    return found


def _of_machines(pool: PoolView, machines: Sequence[RehearsedMachine]) -> list[Reason]:
    alike: dict[tuple[bool, str, str], list[str]] = defaultdict(list)
    for machine in machines:
        if machine.problem:
            is_against = machine.step is not RehearsalStep.SKIPPED
            alike[is_against, machine.problem, machine.remedy or ""].append(machine.hostname)
    found = [
        Reason(is_against, f"{_names(them)}: {what}.", remedy) for (is_against, what, remedy), them in alike.items()
    ]
    if not any(machine.status == "passed" for machine in machines):
        what = "No machine has passed, so that nobody knows whether this pool's machines are what people need."
        found.append(_against(what, "Launch a machine, and rehearse again."))
    if not pool.check_command:
        what = "The pool has no check command: whether what people came for works was not tried."
        found.append(_note(what, "Set one on the pool's page, such as nvidia-smi."))
    if not (pool.terminal or pool.crd):
        what = "its link was not tried" if pool.url_template else "there was none to open"
        found.append(_note(f"Connections: {what}.", "Try it by hand: claim a seat and open it."))
    return found


def _of_arrivals(arrivals: Mapping[str, Any]) -> list[Reason]:
    state, reasons = arrivals.get("state"), [str(each) for each in arrivals.get("reasons") or ()]
    if state == REPLAYED and arrivals.get("verdict") == "ok":
        return []
    if state == REPLAYED:
        why = "; ".join(reasons[:5]) or "no reason was given"
        return [_against(f"The replay of the arrivals went wrong: {why}.", "Look at the server's log and its load.")]
    if state == NOT_REPLAYED:
        why = "; ".join(reasons) or "it was broken off"
        return [_against(f"The arrivals could not be replayed: {why}.", "Rehearse again.")]
    why = f": {'; '.join(reasons)}" if reasons else ""
    remedy = "Rehearse with the arrivals, or run `lablink swarm`, to see how the server bears them."
    return [_note(f"The arrivals were not replayed{why}.", remedy)]


def _against(what: str, remedy: str) -> Reason:
    return Reason(True, what, remedy)


def _note(what: str, remedy: str) -> Reason:
    return Reason(False, what, remedy)


def _names(hostnames: Sequence[str]) -> str:
    more = len(hostnames) - _NAMED
    return ", ".join(hostnames[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
