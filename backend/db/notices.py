"""LISTEN: one connection that hears every change, and says when it may have missed some."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import psycopg
from sqlalchemy import text

from backend.db.engine import Database

CHANNEL = "lablink"
BIGGEST_ID = 2**63 - 1
BEAT_S = 15.0
FIRST_RETRY_S, LAST_RETRY_S = 0.2, 2.0
# A payload must stay below 8,000 bytes.
MOST_IDS = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """What one trigger said: the ``ids`` of ``table`` that changed, and the ``parents`` they belong to.

    What processes say to each other comes the same way; then ``parents`` may name who says it.
    """

    table: str
    ids: tuple[int, ...]
    parents: tuple[int, ...] = ()


async def send_notice(db: Database, table: str, ids: Collection[int], *, parents: Collection[int] = ()) -> None:
    """Says something to every process, this one included, beside what the triggers say.

    Raises:
        Unavailable: Postgres does not answer.
    """
    listed = list(ids)
    async with db.transaction() as session:
        for first in range(0, len(listed), MOST_IDS):
            said = {"table": table, "ids": listed[first : first + MOST_IDS], "parents": list(parents)}
            await session.execute(
                text("SELECT pg_notify(:channel, :said)"), {"channel": CHANNEL, "said": json.dumps(said)}
            )


class NoticeListener:
    """Holds the LISTEN connection. Reconnects by itself and then calls ``on_gap``, since notices may be lost."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._on_notice: list[Callable[[Notice], None]] = []
        self._on_gap: list[Callable[[], None]] = []
        self._on_lost: list[Callable[[], None]] = []
        self.connected = False

    def subscribe(
        self,
        on_notice: Callable[[Notice], None] = lambda _: None,
        *,
        on_gap: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Adds callbacks (they must not block): for each notice, after each (re)connect, and on each loss."""
        self._on_notice.append(on_notice)
        self._on_gap.append(on_gap)
        self._on_lost.append(on_lost)

    async def run(self) -> None:
        """Listens until cancelled. LISTEN bypasses poolers: the URL must lead to Postgres itself."""
        retry_s = FIRST_RETRY_S
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, connect_timeout=5, application_name="lablink-listener"
                )
                async with connection:
                    retry_s = FIRST_RETRY_S
                    await self._listen(connection)
            except (psycopg.Error, OSError, TimeoutError) as exc:
                logger.warning(
                    "listener lost (%s); reconnecting in %.1f s", str(exc).strip() or type(exc).__name__, retry_s
                )
            finally:
                self._lost()
            await asyncio.sleep(retry_s * random.uniform(0.7, 1.3))  # noqa: S311 - jitter, not a secret
            retry_s = min(retry_s * 2, LAST_RETRY_S)

    async def _listen(self, connection: psycopg.AsyncConnection[Any]) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        self.connected = True
        logger.info("listening on %s", CHANNEL)
        for gap in self._on_gap:
            gap()
        while True:
            async for notify in connection.notifies(timeout=BEAT_S):
                self._deliver(notify.payload)
            # A half-open socket would wait for ever; this raises within the connection's own timeouts.
            async with asyncio.timeout(5):
                await connection.execute("SELECT 1")

    def _deliver(self, payload: str) -> None:
        try:
            notice = _parse(payload)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            # Anybody who may connect may also notify.
            logger.warning("ignored a notice that is not ours: %.200r", payload)
            return
        for callback in self._on_notice:
            callback(notice)

    def _lost(self) -> None:
        if self.connected:
            self.connected = False
            for lost in self._on_lost:
                lost()


def _parse(payload: str) -> Notice:
    body = json.loads(payload)
    table, ids, parents = body["table"], body["ids"], body.get("parents") or []
    if not isinstance(table, str) or not isinstance(ids, list) or not isinstance(parents, list):
        raise TypeError(payload)
    if not all(type(each) is int and 0 < each <= BIGGEST_ID for each in (*ids, *parents)):
        raise ValueError(payload)
    return Notice(table, tuple(ids), tuple(parents))
