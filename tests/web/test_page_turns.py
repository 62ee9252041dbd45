"""However many ask at once, so many pages are made at a time, in their order; who reads slowly holds up nobody."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from backend.rounds import Rounds
from lablink_ui.page_turns import PageTurns

AT_ONCE = 3
START = {"type": "http.response.start", "status": 200, "headers": []}


class Server:
    """An app behind turns. What it makes is ready, and what it sends is read, when the test says so."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ready, self.read = asyncio.Event(), asyncio.Event()
        self.answers = Rounds(at_once=1)
        self._turns = PageTurns(self._answer, answers=self.answers, at_once=AT_ONCE)

    def ask(self, number: int, *, path: str = "/seat", kind: str = "http", method: str = "GET") -> asyncio.Task[None]:
        """A request of this number."""
        scope = {"type": kind, "method": method, "path": path, "number": number}
        return asyncio.create_task(self._turns(scope, None, self._take))  # type: ignore[arg-type, func-returns-value]

    async def settle(self) -> None:
        """Lets everybody go on as far as they can."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def _take(self, _message: object) -> None:
        await self.read.wait()

    async def _answer(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.begun.append(scope["number"])
        await self.ready.wait()
        if scope["number"] == 0:
            raise RuntimeError("this page cannot be made")
        await send(START)


async def test_so_many_pages_are_made_at_once_and_one_that_fails_makes_room() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(20)]
    await server.settle()
    assert server.begun == list(range(AT_ONCE))
    server.read.set()
    server.ready.set()
    answers = await asyncio.gather(*crowd, return_exceptions=True)
    assert server.begun == list(range(20))
    assert [number for number, answer in enumerate(answers) if answer] == [0]


async def test_who_reads_slowly_holds_up_nobody() -> None:
    server = Server()
    server.ready.set()
    crowd = [server.ask(number) for number in range(1, 20)]
    await server.settle()
    assert server.begun == list(range(1, 20))
    assert not any(each.done() for each in crowd)
    server.read.set()
    await asyncio.gather(*crowd)


async def test_who_leaves_while_waiting_takes_nobodys_turn() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(1, 13)]
    await server.settle()
    for gone in crowd[5:9]:
        gone.cancel()
    server.read.set()
    server.ready.set()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert server.begun == [1, 2, 3, 4, 5, 10, 11, 12]


async def test_who_was_called_and_leaves_in_the_same_moment_passes_the_turn_on() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(1, AT_ONCE + 3)]
    await server.settle()
    server.read.set()
    # Its first one ends in the very round in which the one that waits for its turn goes.
    crowd[0].cancel()
    await asyncio.sleep(0)
    crowd[AT_ONCE].cancel()
    server.ready.set()
    await asyncio.gather(*crowd, return_exceptions=True)
    assert server.begun == [*range(1, AT_ONCE + 1), AT_ONCE + 2]
    # No turn was lost on the way.
    server.ready.clear()
    later = [server.ask(number) for number in range(31, 31 + AT_ONCE)]
    await server.settle()
    assert server.begun[-AT_ONCE:] == list(range(31, 31 + AT_ONCE))
    server.ready.set()
    await asyncio.gather(*later)


async def test_whoever_is_inside_overtakes_those_who_come_in_and_keeps_nobody_out() -> None:
    server = Server()
    crowd = [server.ask(number, path="/join/lab") for number in range(1, 8)]
    await server.settle()
    others = [server.ask(21), *(server.ask(number, path="/admin/instances") for number in range(22, 26))]
    await server.settle()
    server.read.set()
    server.ready.set()
    await asyncio.gather(*crowd, *others)
    assert server.begun == [1, 2, 3, 21, 22, 23, 4, 24, 25, 5, 6, 7]


async def test_files_forms_and_sockets_wait_for_no_page() -> None:
    server = Server()
    crowd = [server.ask(number) for number in range(1, 10)]
    await server.settle()
    others = [
        server.ask(21, path="/_nicegui/script.js"),
        server.ask(22, method="POST", path="/login"),
        server.ask(23, kind="websocket", path="/_nicegui_ws/socket.io"),
    ]
    await server.settle()
    assert server.begun[AT_ONCE:] == [21, 22, 23]
    server.read.set()
    server.ready.set()
    await asyncio.gather(*crowd, *others)


async def test_while_anybody_stands_at_the_door_answers_of_the_database_wait_for_no_turn() -> None:
    server = Server()
    server.read.set()
    inside = [server.ask(number) for number in range(1, 1 + AT_ONCE)]
    await server.settle()
    assert not server.answers.is_open
    first, second = server.ask(10), server.ask(11)
    await server.settle()
    assert server.answers.is_open
    # Gone is as good as in.
    first.cancel()
    await server.settle()
    assert server.answers.is_open
    server.ready.set()
    await asyncio.gather(*inside, second)
    assert not server.answers.is_open
    assert server.begun == [1, 2, 3, 11]
