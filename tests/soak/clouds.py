<<<<<<< HEAD
"""Whole lives of pools and servers on a local AWS, and what else takes long: the tests marked ``long``."""
=======
"""The tests marked ``long``: whole lives of pools and servers on a local AWS, and every page in each of its looks."""
>>>>>>> pages

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


CLOUDS = Scenario(
<<<<<<< HEAD
    "clouds", 1, "the long tests: three environments, drift and kills on a local AWS, crashes, an outage", play
=======
    "clouds", 1, "the long tests: environments, drift and kills on a local AWS, pages in every look", play
>>>>>>> pages
)
