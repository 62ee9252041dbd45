"""Several processes with one database: which are there, and which of them leads (does what is done once for all).

All by advisory locks on a connection of its own: they end with the process, however it ends, and need no table.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping

import psycopg

from backend.errors import Unavailable

# Any fixed number; nothing else in this database takes it.
LEADER_LOCK = 7_426_005
BEAT_S, ANSWER_S, READY_S = 1.0, 5.0, 20.0
# Postgres itself sends away who is silent for so long: a process that hangs does not lead.
SILENT_S = 10

Marks = Mapping[int, frozenset[int]]


class Presence:
    """This process among the others. ``run`` is its one task; ``marks`` is what they shall know, by kind.

    A kind is the first key of a two-key advisory lock that many may share.
    """

    def __init__(self, conninfo: str, marks: Mapping[int, Collection[str]], *, may_lead: bool = True) -> None:
        self._conninfo = conninfo
        self.marks: Marks = {kind: frozenset(map(_number, words)) for kind, words in marks.items()}
        self._may_lead = may_lead
        self._is_known = asyncio.Event()
        self._leads, self._lost = asyncio.Event(), asyncio.Event()

    @property
    def leads(self) -> bool:
        """Whether this process does what is done once for all."""
        return self._leads.is_set()

    def leading(self, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
        """``work``, once this process leads; broken off if it leads no more."""

        async def when_leading() -> None:
            await self._leads.wait()
            working, losing = asyncio.ensure_future(work()), asyncio.create_task(self._lost.wait())
            try:
                await asyncio.wait({working, losing}, return_when=asyncio.FIRST_COMPLETED)
                if working.done():
                    await working
            finally:
                for task in (working, losing):
                    task.cancel()
                await asyncio.gather(working, losing, return_exceptions=True)

        return when_leading

    async def until_known(self) -> None:
        """Waits until the others can know of this process.

        Raises:
            Unavailable: Postgres does not let us.
        """
        try:
            async with asyncio.timeout(READY_S):
                await self._is_known.wait()
        except TimeoutError:
            raise Unavailable("The database does not answer right now.", retry_after_s=2) from None

    async def run(self) -> None:
        """Is there, and leads once nobody else does, until cancelled.

        Raises:
            Unavailable: Postgres cannot be reached, or went away.
        """
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, connect_timeout=5, application_name="lablink-presence"
            )
            async with connection:
                await connection.execute(f"SET idle_session_timeout = '{SILENT_S}s'")
                for kind, numbers in self.marks.items():
                    for number in numbers:
                        await connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (kind, number))
                self._is_known.set()
                while True:
                    async with asyncio.timeout(ANSWER_S):
                        await self._beat(connection)
                    await asyncio.sleep(BEAT_S)
        except (psycopg.Error, OSError, TimeoutError) as exc:
            raise Unavailable("The database does not answer right now.", retry_after_s=2) from exc
        finally:
            self._leads.clear()
            self._lost.set()
            self._is_known.clear()

    async def _beat(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        if self.leads or not self._may_lead:
            await connection.execute("SELECT 1")
            return
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LEADER_LOCK,))).fetchone()
        if row is not None and row[0] is True:
            self._lost.clear()
            self._leads.set()

    async def list_others(self) -> list[Marks]:
        """The marks of every other process that has some of these kinds.

        Raises:
            Unavailable: Postgres cannot be reached.
        """
        try:
            async with await psycopg.AsyncConnection.connect(self._conninfo, connect_timeout=5) as connection:
                cursor = await connection.execute(_LIST, (list(self.marks),))
                rows = await cursor.fetchall()
        except (psycopg.Error, OSError) as exc:
            raise Unavailable("The database does not answer right now.", retry_after_s=2) from exc
        found: dict[int, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        for pid, kind, number in rows:
            found[pid][kind].add(number)
        everybody = [{kind: frozenset(numbers) for kind, numbers in marks.items()} for marks in found.values()]
        # Of those that are marked just like us one is ourselves.
        own = {kind: numbers for kind, numbers in self.marks.items() if numbers}
        if own in everybody:
            everybody.remove(own)
        return everybody  # type: ignore[return-value]


def _number(word: str) -> int:
    return zlib.crc32(word.encode()) & 0x7FFF_FFFF


_LIST = """
SELECT pid, classid::bigint, objid::bigint FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid::bigint = ANY(%s)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
