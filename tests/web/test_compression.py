"""Files that never change are compressed once for everybody; everything else is made for who asks."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lablink_ui.compression import MAX_FILES, Compression
from tests.harness.server import Server

FILE, GZIP = b"let everybody = 'the same';" * 100, {"Accept-Encoding": "gzip"}
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@pytest.fixture
def asked() -> list[str]:
    """The paths that the app itself was asked for."""
    return []


class OwnHeader:
    """ASGI middleware: puts a header of this request alone where others put cookies and ids."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._numbers = app, itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = next(self._numbers)

        async def send_with_number(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).append("X-Number", str(number))
            await send(message)

        await self._app(scope, receive, send_with_number)


@pytest.fixture
async def client(asked: list[str]) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(middleware=[Middleware(OwnHeader), Middleware(Compression)])

    @app.get("/{path:path}")
    def answer(path: str) -> Response:
        asked.append(path)
        headers = FOR_EVER if path.startswith("file") else {}
        media_type = "font/woff2" if path.endswith(".woff2") else "text/javascript"
        return Response(FILE, media_type=media_type, headers=headers)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=GZIP) as client:
        yield client


async def test_a_file_that_never_changes_is_compressed_once(client: httpx.AsyncClient, asked: list[str]) -> None:
    answers = [await client.get("/file.js") for _ in range(3)]
    assert asked == ["file.js"]
    assert [each.content for each in answers] == [FILE] * 3
    assert {each.headers["content-encoding"] for each in answers} == {"gzip"}
    assert int(answers[-1].headers["content-length"]) < len(FILE) / 5


async def test_a_font_is_compressed_by_itself_and_kept_as_it_is(client: httpx.AsyncClient, asked: list[str]) -> None:
    answers = [await client.get("/file.woff2") for _ in range(3)]
    assert asked == ["file.woff2"]
    assert [(each.content, "content-encoding" in each.headers) for each in answers] == [(FILE, False)] * 3


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/page", {}),
        ("/file.js?version=2", {}),
        ("/file/%2E%2E/file.js", {}),
        ("/file//file.js", {}),
        ("/file.js", {"Range": "bytes=0-5"}),
        ("/file.js", {"If-None-Match": "x"}),
        ("/file.js", {"Accept-Encoding": "identity"}),
    ],
)
async def test_what_may_differ_is_asked_for_each_time(
    client: httpx.AsyncClient, asked: list[str], path: str, headers: dict[str, str]
) -> None:
    for _ in range(2):
        assert (await client.get(path, headers=headers)).content == FILE
    assert len(asked) == 2


async def test_answers_to_programs_are_left_alone(client: httpx.AsyncClient) -> None:
    assert "content-encoding" not in (await client.get("/api/file.js")).headers


async def test_no_more_is_kept_than_there_is_room_for(client: httpx.AsyncClient, asked: list[str]) -> None:
    for _ in range(2):
        for number in range(MAX_FILES + 5):
            await client.get(f"/file{number}.js")
    assert len(asked) == MAX_FILES + 10


async def test_what_is_kept_bears_nothing_of_who_asked_before(client: httpx.AsyncClient, asked: list[str]) -> None:
    answers = [await client.get("/file.js") for _ in range(3)]
    assert asked == ["file.js"]
    assert [each.headers.get_list("x-number") for each in answers] == [["1"], ["2"], ["3"]]


async def test_our_own_style_sheet_comes_compressed_and_whole_to_everybody(shared_server: Server) -> None:
    async with httpx.AsyncClient(base_url=shared_server.url, headers=GZIP) as somebody:
        page = (await somebody.get("/")).text
    (sheet,) = {part.split('"')[0] for part in page.split('href="') if "lablink.css" in part.split('"')[0]}
    ids = set()
    for _ in range(2):
        async with httpx.AsyncClient(base_url=shared_server.url, headers=GZIP) as stranger:
            answer = await stranger.get(sheet)
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.content == Path("assets/lablink.css").read_bytes()
        ids.update(answer.headers.get_list("x-request-id"))
    assert len(ids) == 2
