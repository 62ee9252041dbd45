"""The tests marked ``long``: lives of pools and servers on a local AWS, crashes, an outage, each page in each look."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.soak.rounds import Round, Scenario

ROOT = Path(__file__).parents[2]


async def play(_: Round) -> None:
    """Raises:
    AssertionError: one of them failed; pytest has said why.
    """
    tests = await asyncio.create_subprocess_exec(sys.executable, "-m", "pytest", "-q", "-m", "long", cwd=ROOT)
    assert await tests.wait() == 0, "a long test failed"


LONG = Scenario("long", 1, "the tests marked long: lives on a local AWS, crashes, an outage, every page's looks", play)
