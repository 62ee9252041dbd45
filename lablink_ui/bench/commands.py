"""From a claim to the agent that holds its command, while every machine waits in a long poll."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack

from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, BenchFailed, Figure, Report
from lablink_ui.bench.loadgen import Connection, connect, percentile, request
from lablink_ui.bench.machines import POOL, Machine, join
from lablink_ui.bench.server import BenchServer, serve

PATH = "claim → agent"
POLL_S = 25
PICKED_UP_S = 10.0
CREATED = 201
# Between two claims: each is measured by itself.
PAUSE_S = 0.02
_LIMIT_IS = "the same claim's own answer"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """People claim one after the other; each claim is a command for one of the agents that wait.

    Raises:
        BenchFailed: a claim was refused, or its agent did not get its command.
    """
    async with serve(cores.server, f"pool.default.max={sizes.polls}") as server:
        machines = await join(server, sizes.polls)
        began = time.monotonic()
        with ExitStack() as stack:
            answered, picked_up = await _claim_one_by_one(stack, server, machines, sizes.polled_claims)
        lag = server.lag(PATH, since=began)
    name = f"{sizes.polls} long polls"
    return Report(
        [
            *(
                Figure(
                    PATH,
                    f"p{percent}, {name}",
                    MS,
                    _ms(picked_up, percent),
                    _ms(answered, percent),
                    _LIMIT_IS,
                )
                for percent in (50, 95)
            ),
            lag,
        ]
    )


async def _claim_one_by_one(
    stack: ExitStack, server: BenchServer, machines: Sequence[Machine], count: int
) -> tuple[list[float], list[float]]:
    """Seconds until each claim was answered, and until its agent had the command."""
    came: dict[str, float] = {}
    polls = [asyncio.create_task(_poll(stack, server.port, machine, came)) for machine in machines]
    person = await connect(server.port)
    stack.callback(person.close)
    answered, picked_up = [], []
    try:
        for number in range(count):
            began = time.perf_counter()
            body = {"email": f"person-{number}@bench.example", "pool": POOL}
            status, answer = await person.ask(request("POST", "/api/request_vm", body))
            if status != CREATED:
                raise BenchFailed(f"a claim was answered {status}: {answer[:200]!r}")
            answered.append(time.perf_counter() - began)
            picked_up.append(await _until_picked_up(came, json.loads(answer)["hostname"]) - began)
            await asyncio.sleep(PAUSE_S)
    finally:
        for poll in polls:
            poll.cancel()
        await asyncio.gather(*polls, return_exceptions=True)
    return answered, picked_up


async def _poll(stack: ExitStack, port: int, machine: Machine, came: dict[str, float]) -> None:
    """Waits as an agent does, until there is a command."""
    connection: Connection = await connect(port)
    stack.callback(connection.close)
    while machine.hostname not in came:
        status, body = await connection.ask(machine.poll(POLL_S))
        if status != 200:
            raise BenchFailed(f"a long poll was answered {status}: {body[:200]!r}")
        if json.loads(body)["commands"]:
            came[machine.hostname] = time.perf_counter()


async def _until_picked_up(came: dict[str, float], hostname: str) -> float:
    end = time.monotonic() + PICKED_UP_S
    while hostname not in came:
        if time.monotonic() > end:
            raise BenchFailed(f"{hostname} did not get its command within {PICKED_UP_S:.0f} s")
        await asyncio.sleep(0.001)
    return came[hostname]


def _ms(seconds: Sequence[float], percent: float) -> float:
    return 1_000 * percentile(seconds, percent)
