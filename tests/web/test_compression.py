"""Files that never change are compressed once for everybody; everything else is made for who asks."""

from __future__ import annotations

import gzip

import httpx
import pytest
from fastapi import FastAPI, Response
from starlette.middleware import Middleware

from lablink_ui.compression import MAX_FILES, Compression
from tests.harness.server import Server

FILE, GZIP = b"let everybody = 'the same';" * 100, {"Accept-Encoding": "gzip"}
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}


@pytest.fixture
def asked() -> list[str]:
    """The paths that the app itself was asked for."""
    return []


@pytest.fixture
def client(asked: list[str]) -> httpx.AsyncClient:
    app = FastAPI(middleware=[Middleware(Compression)])

    @app.get("/{path:path}")
    def answer(path: str) -> Response:
        asked.append(path)
        headers = FOR_EVER if path.startswith("file") else {}
        return Response(FILE, media_type="text/javascript", headers=headers)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=GZIP)


async def test_a_file_that_never_changes_is_compressed_once(client: httpx.AsyncClient, asked: list[str]) -> None:
    answers = [await client.get("/file.js") for _ in range(3)]
    assert asked == ["file.js"]
    assert [each.content for each in answers] == [FILE] * 3
    assert {each.headers["content-encoding"] for each in answers} == {"gzip"}
    assert int(answers[-1].headers["content-length"]) < len(FILE) / 5


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/page", {}),
        ("/file.js?version=2", {}),
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


async def test_what_is_kept_bears_nobodys_cookie(shared_server: Server) -> None:
    async with httpx.AsyncClient(base_url=shared_server.url, headers=GZIP) as somebody:
        page = (await somebody.get("/")).text
    (sheet,) = {part.split('"')[0] for part in page.split('href="') if "lablink.css" in part.split('"')[0]}
    seen = []
    for _ in range(2):
        async with httpx.AsyncClient(base_url=shared_server.url, headers=GZIP) as stranger:
            answer = await stranger.get(sheet)
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.compress(answer.content)
        seen.append((answer.headers.get("set-cookie"), answer.headers["x-request-id"]))
    assert seen[0] != seen[1]
