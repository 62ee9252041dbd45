"""Open pages without a browser: the real page, and its socket held open and answered; hundreds in one process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from lablink_ui.bench.figures import BenchFailed

AT_ONCE = 8
ACK_S, ANSWER_S = 3.0, 30.0
_QUERY = re.compile(r"^\s*query: (\{.*\}),$", re.MULTILINE)
_ID = re.compile(r'"_id":(\d+)\}\]$')


@asynccontextmanager
async def open_pages(url: str, path: str, count: int) -> AsyncIterator[None]:
    """So many pages of different people, open within the block.

    Raises:
        BenchFailed: one did not open, or was closed by the server meanwhile.
    """
    turns = asyncio.Semaphore(AT_ONCE)
    async with AsyncExitStack() as stack:
        tasks = await asyncio.gather(*(_open(stack, turns, url, path) for _ in range(count)))
        try:
            yield
            lost = sum(task.done() for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    if lost:
        raise BenchFailed(f"{lost} of {count} open pages were closed by the server")


async def _open(stack: AsyncExitStack, turns: asyncio.Semaphore, url: str, path: str) -> asyncio.Task[None]:
    async with turns:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=ANSWER_S) as browser:
            answer = await browser.get(path)
            found = _QUERY.search(answer.text)
            if answer.status_code != 200 or found is None:
                raise BenchFailed(f"{path} was answered {answer.status_code}, and not with a page")
            cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        # Written as Python; the page's own script knows its words.
        query = ast.literal_eval(found[1]) | {"document_id": str(uuid.uuid4()), "EIO": 4, "transport": "websocket"}
        query |= dict.fromkeys(("tab_id", "old_tab_id"), str(uuid.uuid4()))
        words = {key: json.dumps(value) if isinstance(value, bool) else value for key, value in query.items()}
        address = f"{url.replace('http', 'ws', 1)}/_nicegui_ws/socket.io/?{urlencode(words)}"
        headers = {"Cookie": cookie, "Origin": url}
        dialled = connect(address, additional_headers=headers, proxy=None, compression=None, ping_interval=None)
        socket = await stack.enter_async_context(dialled)
        is_open = asyncio.Event()
        task = asyncio.create_task(_live(socket, query["client_id"], is_open))
        async with asyncio.timeout(ANSWER_S):
            await is_open.wait()
        return task


async def _live(socket: ClientConnection, client_id: str, is_open: asyncio.Event) -> None:
    """Answers as a page does: the beat, the greeting, and now and then how far it has read."""
    acknowledged_at = 0.0
    with contextlib.suppress(WebSocketException, OSError):
        async for message in socket:
            text = str(message)
            number = _ID.search(text)
            if text.startswith("0"):
                await socket.send("40")
            elif text == "2":
                await socket.send("3")
            elif text.startswith("40"):
                is_open.set()
            elif number is not None and time.monotonic() - acknowledged_at > ACK_S:
                acknowledged_at = time.monotonic()
                seen = {"client_id": client_id, "next_message_id": int(number[1]) + 1}
                await socket.send(f"42{json.dumps(['ack', seen])}")
