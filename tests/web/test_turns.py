"""A crowd of requests begins a few at a time, in its order; nobody is left standing."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from backend.api.turns import Turns
from backend.rounds import URGENT

AT_ONCE = 3


class Server:
    """An app behind turns that notes who begins in which round of the loop."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []
        self._round = 0
        self._turns = Turns(self._answer, at_once=AT_ONCE)

    def ask(self, number: int, kind: str = "http", path: str = "/api/request_vm") -> asyncio.Task[None]:
        """A request of this number."""
        scope = {"type": kind, "number": number, "path": path}
        return asyncio.create_task(self._turns(scope, None, None))  # type: ignore[arg-type, func-returns-value]

    async def count_rounds(self) -> None:
        """Somebody else who wants to get on."""
        while True:
            await asyncio.sleep(0)
            self._round += 1

    def per_round(self) -> list[int]:
        """How many began in each round in which somebody did."""
        rounds = [number for number, _ in self.begun]
        return [rounds.count(each) for each in sorted(set(rounds))]

    async def _answer(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.begun.append((self._round, scope["number"]))


async def test_a_crowd_begins_some_at_a_time_and_in_its_order() -> None:
    server = Server()
    bystander = asyncio.create_task(server.count_rounds())
    await asyncio.gather(*(server.ask(number) for number in range(20)))
    bystander.cancel()
    assert [number for _, number in server.begun] == list(range(20))
    assert sum(server.per_round()) == 20
    assert max(server.per_round()) <= AT_ONCE


async def test_whoever_comes_later_does_not_overtake() -> None:
    server = Server()
    first = [server.ask(number) for number in range(10)]
    for _ in range(2):
        await asyncio.sleep(0)
    await asyncio.gather(*first, *(server.ask(number) for number in range(10, 15)))
    assert [number for _, number in server.begun] == list(range(15))


async def test_what_a_machine_asks_overtakes_a_crowd() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(10)]
    await asyncio.gather(*crowd, server.ask(99, path="/api/commands"))
    assert [number for _, number in server.begun[:AT_ONCE]] == list(range(AT_ONCE))
    assert server.begun[AT_ONCE][1] == 99
    assert len(server.begun) == 11


@pytest.mark.parametrize(
    ("flood", "other", "turns"),
    [("/api/commands", "/api/request_vm", 9 * (URGENT + 1)), ("/api/request_vm", "/api/logs", 9 + 9 // URGENT)],
    ids=["of the urgent", "of others"],
)
async def test_a_flood_leaves_the_others_their_part_of_the_turns(flood: str, other: str, turns: int) -> None:
    server = Server()
    # More come as fast as any is let through.
    first = [server.ask(number, path=flood) for number in range(100)]
    await asyncio.sleep(0)
    others = [server.ask(number, path=other) for number in range(1_000, 1_010)]
    for _ in range(20):
        begun = len(server.begun)
        await asyncio.sleep(0)
        first += [server.ask(number, path=flood) for number in range(begun, len(server.begun))]
    assert all(each.done() for each in others)
    numbers = [number for _, number in server.begun]
    assert [number for number in numbers if number >= 1_000] == list(range(1_000, 1_010))
    assert numbers.index(1_009) - numbers.index(1_000) == turns
    await asyncio.gather(*first)


async def test_whoever_leaves_takes_nobodys_turn() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(12)]
    await asyncio.sleep(0)
    for gone in crowd[4:9]:
        gone.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert [number for _, number in server.begun] == [0, 1, 2, 3, 9, 10, 11]
    # And when all is quiet again, the next one begins at once.
    await server.ask(12)
    assert server.begun[-1][1] == 12


async def test_sockets_of_pages_wait_for_no_turn() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(10)]
    await server.ask(99, "websocket")
    assert len(server.begun) <= AT_ONCE + 1
    await asyncio.gather(*crowd)
    assert len(server.begun) == 11
