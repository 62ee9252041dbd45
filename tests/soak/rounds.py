"""Rounds: a scenario is played again and again, each time with a luck of its own."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

ARTIFACTS = Path(__file__).parents[1] / "artifacts" / "soak"


class Round:
    """One round. Its ``luck`` follows from scenario, seed and number alone; moments still differ by how fast we are."""

    def __init__(self, scenario: str, seed: int, number: int, directory: Path) -> None:
        self.scenario, self.seed, self.number, self.directory = scenario, seed, number, directory
        self.luck = random.Random(f"{scenario} {seed} {number}")
        self._began = time.monotonic()

    def say(self, words: str) -> None:
        """Tells what is being done, and when in the round."""
        print(f"    {time.monotonic() - self._began:5.1f} s  {words}", flush=True)


@dataclass(frozen=True)
class Scenario:
    """What is played. ``play`` raises an AssertionError at a violation."""

    name: str
    rounds: int
    text: str
    play: Callable[[Round], Awaitable[None]]


async def play_round(scenario: Scenario, seed: int, number: int) -> None:
    """Plays one round in a directory of its own. At a violation its logs are kept among the artifacts.

    Raises:
        AssertionError: a violation.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"lablink-{scenario.name}-"))
    try:
        await scenario.play(Round(scenario.name, seed, number, directory))
    except BaseException:
        kept = ARTIFACTS / f"{scenario.name}-{seed}-{number}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in (*directory.glob("*.log"), *directory.glob("home/postgres/log")):
            shutil.copyfile(log, kept / log.name)
        raise
    finally:
        shutil.rmtree(directory, ignore_errors=True)
