"""A process of a swarm: it gets an order by its standard input, does it, and tells what it saw by its standard output.

The order is the first line. Further lines are words: ``begin``, ``leave``. At the end of the input it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import uvloop

from lablink_ui.swarm.agents import Machine, Ways, enrol_all
from lablink_ui.swarm.consoles import watch
from lablink_ui.swarm.http import Failed
from lablink_ui.swarm.people import Researcher
from lablink_ui.swarm.scenario import parse_scenario, plan
from lablink_ui.swarm.target import Target
from lablink_ui.swarm.telling import Teller

LEAVE_AT_ONCE = 25
Order = dict[str, Any]


class Words:
    """What the input says, one event each."""

    def __init__(self) -> None:
        self.begin, self.leave, self.end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Reads until the end; whoever gave the order is gone then."""
        while line := await lines.readline():
            word = line.decode().strip()
            if word in {"begin", "leave"}:
                getattr(self, word).set()
        self.end.set()


def make_order(target: Target, scenario_text: str, seed: int, **more: Any) -> bytes:
    """An order, ready to be sent."""
    return json.dumps({"target": asdict(target), "scenario": scenario_text, "seed": seed, **more}).encode() + b"\n"


async def _work() -> None:
    lines = asyncio.StreamReader(limit=2**26)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    order: Order = json.loads(await lines.readline())
    words, teller = Words(), Teller()
    sides = [asyncio.create_task(words.read(lines)), asyncio.create_task(teller.run())]
    works: dict[str, Callable[..., Awaitable[None]]] = {"machines": _be_machines, "people": _be_people}
    work = asyncio.ensure_future(works[order["kind"]](order, words, teller))
    ended = asyncio.create_task(words.end.wait())
    await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
    for task in (work, ended, *sides):
        task.cancel()
    results = await asyncio.gather(work, *sides, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _be_machines(order: Order, words: Words, teller: Teller) -> None:
    target, scenario = _target(order), parse_scenario(order["scenario"])
    ways = Ways(scenario.work, scenario.patience)
    machines = [Machine(target, hostname, token, ways, teller) for hostname, token in order["machines"]]
    try:
        await enrol_all(machines)
    except Failed as exc:
        teller.failed("enrolment", exc)
        teller.reached("failed")
        return
    teller.reached("ready")
    await asyncio.gather(*(machine.live() for machine in machines))
    teller.reached("gone")


async def _be_people(order: Order, words: Words, teller: Teller) -> None:
    target, scenario = _target(order), parse_scenario(order["scenario"])
    teller.reached("ready")
    await words.begin.wait()
    consoles = [
        asyncio.create_task(watch(target, order["cookies"], number, teller, words.leave))
        for number in order["admin_pages"]
    ]
    chosen = plan(scenario, order["seed"])[order["first"] :: order["of"]]
    researchers = [Researcher(target, person, scenario, teller) for person in chosen]
    began = time.monotonic()
    lives = [asyncio.create_task(each.live(began)) for each in researchers]
    leaving = asyncio.create_task(words.leave.wait())
    # A defect of ours ends it at once; else whoever is still in the middle is called away.
    while not leaving.done() and not any(task.done() and task.exception() for task in lives):
        await asyncio.wait({leaving, *(task for task in lives if not task.done())}, return_when=asyncio.FIRST_COMPLETED)
    for task in lives:
        task.cancel()
    for result in await asyncio.gather(*lives, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    await asyncio.gather(*consoles)
    await _leave(researchers, keep=order["keep"])
    teller.reached("gone")


async def _leave(researchers: list[Researcher], *, keep: bool) -> None:
    turns = asyncio.Semaphore(LEAVE_AT_ONCE)

    async def one(researcher: Researcher) -> None:
        async with turns:
            await (researcher.close() if keep else researcher.leave())

    await asyncio.gather(*(one(each) for each in researchers))


def _target(order: Order) -> Target:
    found = order["target"]
    return Target(found["scheme"], found["host"], found["port"], tuple(found["addresses"]))


def main() -> int:
    """Works until done, or until the input ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_work())
    return 0


if __name__ == "__main__":
    sys.exit(main())
