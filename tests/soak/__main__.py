"""`make soak`: plays scenarios, goes on where it left off, and says how to play a failed round again."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from tests.soak.crashes import CRASHES
from tests.soak.fleet import FLEET
from tests.soak.gpus import GPUS
from tests.soak.hour import HOUR
from tests.soak.lecture import CLASS
from tests.soak.long_tests import LONG
from tests.soak.memory import Memory, get_commit
from tests.soak.mending import MENDING
from tests.soak.rounds import ARTIFACTS, Scenario, play_round
from tests.soak.silence import SILENCE
from tests.soak.storm import STORM
from tests.soak.wifi import WIFI

_ALL = (CRASHES, STORM, WIFI, LONG, MENDING, GPUS, SILENCE, FLEET, CLASS, HOUR)
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
PASSED, VIOLATED, UNFINISHED = 0, 1, 75
_EPILOG = """\
Everything random in a round follows from scenario, seed and number of the round. Rounds that have passed are remembered
for this commit and seed, in tests/artifacts/soak: the same command goes on where the last one was ended. The last line
of a scenario is the one that the README shows.

  make soak                                         all scenarios, whole
  make soak ARGS="crashes"                          one of them
  make soak ARGS="crashes --minutes 8"              a piece of it; the next call goes on
  make soak ARGS="crashes --seed 7 --round 12"      one round again, after a violation

Exit status: 0 all rounds have passed, 1 a violation, 75 ended before all rounds were played.
"""


def main(argv: Sequence[str]) -> int:
    """Plays; returns the exit status."""
    given = _parser().parse_args(argv)
    if given.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name:<10}{scenario.rounds:>3} rounds  {scenario.text}")
        return PASSED
    deadline = time.monotonic() + 60 * given.minutes if given.minutes else None
    for name in given.names or SCENARIOS:
        status = _play(SCENARIOS[name], given, deadline)
        if status != PASSED:
            return status
    return PASSED


def _play(scenario: Scenario, given: argparse.Namespace, deadline: float | None) -> int:
    memory, commit = Memory(), get_commit()
    key = f"{scenario.name} seed {given.seed} commit {commit}"
    if given.fresh:
        memory.forget(key)
    wanted = [given.round] if given.round else range(1, (given.rounds or scenario.rounds) + 1)
    passed = set() if given.round else memory.list_passed(key) & set(wanted)
    print(f"soak {scenario.name}: {scenario.text}" + (f" ({len(passed)} rounds have passed before)" if passed else ""))
    for number in wanted:
        if number in passed:
            continue
        if deadline and time.monotonic() > deadline:
            return _unfinished(scenario, len(passed), len(wanted))
        print(f"  round {number} of {len(wanted)}" if not given.round else f"  round {number}", flush=True)
        status = _play_round(scenario, given.seed, number)
        if status == UNFINISHED:
            return _unfinished(scenario, len(passed), len(wanted))
        if status != PASSED:
            return status
        passed.add(number)
        memory.note(key, number)
    which = f"round {given.round} passed" if given.round else f"{len(passed)} rounds passed"
    print(f"soak {scenario.name}: {which}, seed {given.seed}, commit {commit}, {datetime.now(UTC):%Y-%m-%d}")
    return PASSED


def _play_round(scenario: Scenario, seed: int, number: int) -> int:
    with _told_to_end():
        try:
            asyncio.run(play_round(scenario, seed, number))
        except KeyboardInterrupt:
            return UNFINISHED
        except Exception as exc:
            traceback.print_exc()
            print(f"VIOLATION: {exc}\n  logs: {ARTIFACTS / f'{scenario.name}-{seed}-{number}'}")
            print(f'  again: make soak ARGS="{scenario.name} --seed {seed} --round {number}"')
            return VIOLATED
    return PASSED


@contextlib.contextmanager
def _told_to_end() -> Iterator[None]:
    """SIGTERM ends a round as Ctrl-C does: with everything that it started."""
    former = signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _unfinished(scenario: Scenario, passed: int, wanted: int) -> int:
    print(f"soak {scenario.name}: ended after {passed} of {wanted} rounds; the same command goes on")
    return UNFINISHED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Play long random scenarios against a real server and check that everything stays true.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(SCENARIOS)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*SCENARIOS, []], help=f"{names} (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="whose luck (default: 1)")
    parser.add_argument("--rounds", type=int, help="how many rounds (default: the scenario's own number)")
    parser.add_argument("--round", type=int, help="play this one alone, passed or not")
    parser.add_argument("--minutes", type=float, help="begin no further round after so many minutes")
    parser.add_argument("--fresh", action="store_true", help="forget what has passed and begin anew")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
