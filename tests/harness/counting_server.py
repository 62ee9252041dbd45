"""`lablink` with one thing more: each answer says in a header how many statements its request sent to Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import psycopg

import lablink_ui.main
from lablink_ui import cli

HEADER = "x-statements"
_sent: ContextVar[list[object] | None] = ContextVar("sent", default=None)
_execute, _make_app = psycopg.AsyncCursor.execute, lablink_ui.main.make_app


async def execute(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
    """What SQLAlchemy and we ourselves call in the end; what other tasks send is not counted."""
    if (sent := _sent.get()) is not None:
        sent.append(query)
    return await _execute(cursor, query, *args, **options)


class Counting:
    """ASGI middleware around everything."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sent: list[object] = []
        _sent.set(sent)

        async def send_with_count(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER.encode(), b"%d" % len(sent))]
            await send(message)

        await self._app(scope, receive, send_with_count if scope["type"] == "http" else send)


def main(argv: Sequence[str]) -> int:
    """The command's own, with that in its server."""
    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]
    lablink_ui.main.make_app = lambda house: Counting(_make_app(house))  # type: ignore[assignment, return-value]
    return cli.main(argv)
