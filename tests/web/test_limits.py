"""What a connection may cost: bytes, time, and how many there are."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from tests.harness.agents import join
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until

DEADLINE_S = 2


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes the connection."""
    async with asyncio.timeout(DEADLINE_S + 8):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def drip(server: Server, first: bytes, piece: bytes) -> bytes:
    """Sends a piece again and again for as long as the server listens; returns its answer."""
    reader, writer = await connect(server)
    writer.write(first)

    async def go_on() -> None:
        while not writer.is_closing():
            writer.write(piece)
            await asyncio.sleep(0.2)

    dripping = asyncio.create_task(go_on())
    try:
        return await answer_of(reader)
    finally:
        dripping.cancel()
        writer.close()


async def test_requests_that_never_end_do_not_hold_a_place(web_server) -> None:
    head = b" HTTP/1.1\r\nHost: x\r\n"
    cases = {
        "headers": (b"GET /healthz" + head, b"X-Slow: 1\r\n"),
        "a body": (b"POST /api/request_vm" + head + b"Content-Length: 999\r\n\r\n", b" "),
        "a form": (b"POST /logout" + head + b"Origin: http://x\r\nContent-Length: 999\r\n\r\n", b" "),
        "chunks": (b"POST /api/request_vm" + head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        "a body that nobody reads": (b"POST /nowhere" + head + b"Content-Length: 999\r\n\r\n", b" "),
        "silence": (b"", b""),
    }
    began = time.monotonic()
    answers = dict(zip(cases, await gather_all(*(drip(web_server, *case) for case in cases.values())), strict=True))
    assert time.monotonic() - began < DEADLINE_S + 3
    assert {name: answer[:12] for name, answer in answers.items() if answer[:12] != b"HTTP/1.1 408"} in (
        {"a body that nobody reads": b"HTTP/1.1 404"},
        {},
    )
    assert "Traceback" not in web_server.log.read_text()


@pytest.mark.parametrize("path", ["/api/request_vm", "/logout"])
@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"], ids=["no length", "length 0"])
async def test_a_post_without_a_body_is_answered_at_once(web_server, path: str, length: bytes) -> None:
    reader, writer = await connect(web_server)
    writer.write(b"POST " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + length + b"\r\n")
    assert (await answer_of(reader))[:12] in {b"HTTP/1.1 422", b"HTTP/1.1 403"}
    writer.close()


async def test_a_slow_answer_is_no_slow_request(web_server) -> None:
    async with web_server.client() as client:
        (agent,) = await join(web_server, client, 1, prefix="patient")
        began = time.monotonic()
        assert await agent.list_commands(wait=DEADLINE_S + 1.5) == []
        assert time.monotonic() - began > DEADLINE_S + 1
        # And the connection is as good as before.
        assert (await agent.beat()).status_code == 200


@pytest.mark.parametrize("is_whole", [True, False], ids=["at once", "without end"])
async def test_headers_larger_than_64_kb_are_refused(web_server, is_whole: bool) -> None:
    reader, writer = await connect(web_server)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 70_000)
    if is_whole:
        writer.write(b"\r\n\r\n")
    assert (await answer_of(reader)).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_a_refusal_arrives_before_the_connection_goes_away(web_server) -> None:
    reader, writer = await connect(web_server)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Large: " + b"x" * 3_000_000)
    assert (await answer_of(reader)).startswith(b"HTTP/1.1 431")
    writer.close()


async def test_a_long_address_is_refused(web_server) -> None:
    async with web_server.client() as client:
        assert (await client.get(f"/healthz?{'x' * 65_000}")).status_code == 431


@pytest.mark.parametrize("body", ["[" * 200_000, '{"a":' * 100_000, "9" * 10_000], ids=["lists", "objects", "digits"])
async def test_json_without_bottom_is_refused(web_server, body: str) -> None:
    async with web_server.client() as client:
        answer = await client.post("/api/request_vm", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in {400, 422}
        assert json.loads(answer.text)["error"]["message"]


async def test_more_connections_than_allowed_are_told_so_and_places_come_free_again(web_server) -> None:
    open_ones = [await connect(web_server) for _ in range(100)]
    reader, writer = await connect(web_server)
    assert (await answer_of(reader)).startswith(b"HTTP/1.1 503")
    writer.close()
    for _, each in open_ones:
        each.close()

    async def is_served() -> bool:
        async with web_server.client() as client:
            return (await client.get("/healthz")).status_code == 200

    await until(is_served, what="there is room again")
