"""The one way to Postgres: an engine, and ``transaction()``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from backend.db.batches import Batches, Item, Key, Result, Work
from backend.db.express import BROKEN, Connection, ExpressLane, is_at_rest
from backend.errors import Unavailable
from backend.rounds import Rounds

LOOK_S = 0.5
# Waiting for a connection: a crowd that arrives at once waits its turn; to be told "later" would be no sooner.
WAIT_S = 60.0
# Few: their statements take a millisecond, and each connection more is one more that steps over the others' locks.
EXPRESS_SIZE = 4
# Answers that come together: each goes on for a millisecond or two.
ANSWERS_AT_ONCE = 2
# So long a network may swallow everything before a connection counts as lost. Else who is in the middle of something
# when a host vanishes (RDS changes over to its standby) waits as long as the kernel repeats itself: a quarter of an
# hour. Parameters of libpq (Postgres 16 manual, 34.1.2), without meaning on a socket of this machine.
SILENCE = {"tcp_user_timeout": 15_000, "keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2}

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment, with its time zone."""
    return datetime.now(UTC)


class Database:
    """Owns the connection pool. ``now`` is its clock, injected so that tests can age things.

    ``name`` is what Postgres's own lists call its connections. ``answers`` has those who asked go on in their turn.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        statement_timeout_s: int = 30,
        now: Clock = utc_now,
        name: str = "lablink",
    ) -> None:
        self.conninfo = plain_url(url)
        self.answers = Rounds(at_once=ANSWERS_AT_ONCE)
        self.now = now
        options = {
            "connect_timeout": 5,
            "application_name": name,
            "options": f"-c statement_timeout={statement_timeout_s * 1000}"
            " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC",
        }
        self.engine = create_async_engine(
            self.conninfo.replace("postgresql://", "postgresql+psycopg://", 1),
            pool_size=pool_size,
            # Those beyond its size would be closed after each use: a crowd would make Postgres start processes all day.
            max_overflow=0,
            pool_timeout=WAIT_S,
            # Else a failing statement would write its values into the log.
            hide_parameters=True,
            connect_args={**options, "async_creator_fn": self._connect},
        )
        event.listen(self.engine.sync_engine, "checkin", _keep_out_of_pool)
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self._express = ExpressLane(self.conninfo, size=EXPRESS_SIZE, wait_s=WAIT_S, options=options)
        self._batches = Batches(self.express)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """One transaction: commits at the end of the block, rolls back if it raises.

        Raises:
            Unavailable: Postgres could not be reached or went away in the middle; nothing was kept.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except (OperationalError, InterfaceError, PoolTimeout) as exc:
            raise _unavailable() from exc
        except DBAPIError as exc:
            if exc.connection_invalidated:
                raise Unavailable("The database connection was lost. Try again in a moment.", retry_after_s=2) from exc
            raise

    @asynccontextmanager
    async def express(self) -> AsyncIterator[Connection]:
        """A connection on which each statement is a transaction by itself, past SQLAlchemy and its sessions.

        For the few statements that a crowd sends: there it costs a fifth, and one trip instead of three.

        Raises:
            Unavailable: as ``transaction`` does.
        """
        try:
            async with self._express.connection() as connection:
                yield connection
        except (*BROKEN, TimeoutError) as exc:
            raise _unavailable() from exc

    async def together(self, work: Work[Key, Item, Result], key: Key, item: Item) -> Result:
        """What ``work`` makes of ``item``, in one statement with the items of whoever else asks for the same now.

        Raises:
            Unavailable: as ``transaction`` does.
        """
        return await self._batches.add(work, key, item)

    async def until_reachable(self) -> None:
        """Waits until Postgres answers."""
        while True:
            try:
                async with self.transaction() as session:
                    await session.execute(text("SELECT 1"))
                return
            except Unavailable:
                await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Closes every pooled connection."""
        await self._batches.close()
        await self._express.close()
        await self.engine.dispose()

    async def _connect(self, *args: Any, **options: Any) -> Connection:
        connection = await _InTurn.connect(*args, **options)
        connection.rounds = self.answers
        return connection


class _InTurn(psycopg.AsyncConnection[Any]):
    """Whoever has asked something goes on in their turn: of a crowd's answers not all in the same round of the loop."""

    rounds: Rounds

    async def wait(self, *args: Any, **options: Any) -> Any:
        """As psycopg's own, which every statement goes through."""
        answer = await super().wait(*args, **options)
        await self.rounds.take_turn()
        return answer


def plain_url(url: str) -> str:
    """The URL as libpq takes it, whatever SQLAlchemy driver suffix it came with, and with an end to its patience.

    A URL that names one of those parameters itself has its way.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.startswith("postgres"):
        return url
    address, _, query = rest.partition("?")
    given = [part for part in query.split("&") if part]
    named = {part.partition("=")[0] for part in given}
    added = [f"{key}={value}" for key, value in SILENCE.items() if key not in named]
    return f"postgresql://{address}?{'&'.join(given + added)}"


async def driver_connection(session: AsyncSession) -> Connection:
    """The psycopg connection under this session, for work that must be part of its transaction."""
    raw = await (await session.connection()).get_raw_connection()
    connection = raw.driver_connection
    assert isinstance(connection, psycopg.AsyncConnection)
    return connection


def violated_constraint(exc: BaseException) -> str | None:
    """The name of the constraint behind an ``IntegrityError``, to be turned into a domain error."""
    original = getattr(exc, "orig", None)
    diag = getattr(original, "diag", None)
    return getattr(diag, "constraint_name", None)


def _keep_out_of_pool(_: object, record: ConnectionPoolEntry) -> None:
    """Lets a connection that is not at rest end here: the pool makes another one when it needs one."""
    connection = record.driver_connection
    if connection is not None and not is_at_rest(connection):
        record.invalidate()


def _unavailable() -> Unavailable:
    return Unavailable("The database does not answer right now. Try again in a moment.", retry_after_s=2)
