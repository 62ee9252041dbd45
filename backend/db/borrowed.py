"""The database for a short errand, whether or not a server is using it just now."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database, plain_url
from backend.db.migrate import migrate
from backend.errors import Conflict, NotFound
from backend.settings import Settings


@contextmanager
def alone_in(home: Path) -> Iterator[None]:
    """Keeps other servers out of the data directory: a second one would stop the first one's Postgres at its end.

    Raises:
        Conflict: a server uses it.
    """
    with (home / "server.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another LabLink server uses the data directory {home}. Stop it, or set LABLINK_HOME to another one.",
                code="in_use",
            ) from None
        yield


@contextmanager
def together_in(home: Path, url: str) -> Iterator[None]:
    """Lets only servers of the same (external) database into the data directory: others' machines are strangers there.

    Raises:
        Conflict: a server of another database uses it, or one with a Postgres in it.
    """
    with (home / "server.lock").open("a+", encoding="ascii") as file:
        if not _enter(home, file, _name_of(url)):
            raise Conflict(
                f"A LabLink server of another database (LABLINK_DATABASE_URL) uses the data directory {home}. Stop it, "
                "or set LABLINK_HOME to another one.",
                code="in_use",
            )
        yield


def _enter(home: Path, file: TextIO, name: str) -> bool:
    """Shares the lock with those who gave the same name, the first of whom writes it down; says whether it could."""
    # One at a time: else whoever writes it down would seem to be somebody else to those who start at the same moment.
    with (home / "server-entry.lock").open("a") as entry:
        fcntl.flock(entry, fcntl.LOCK_EX)
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.truncate(0)
            file.write(name)
            file.flush()
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        file.seek(0)
        return file.read() == name


def _name_of(url: str) -> str:
    """Tells databases apart, with nothing of user or password in it."""
    try:
        given = conninfo_to_dict(plain_url(url))
    except ProgrammingError:
        given = {}
    return hashlib.sha256(json.dumps([given.get(key) for key in ("host", "port", "dbname")]).encode()).hexdigest()


@asynccontextmanager
async def borrow_database(settings: Settings) -> AsyncIterator[Database]:
    """The configured database. An embedded Postgres that no server uses is started for this, and stopped afterwards.

    Raises:
        NotFound: there is no database of ours yet.
        PostgresFailed: the embedded server does not start.
    """
    if settings.secrets.database_url:
        async with _open(settings.secrets.database_url) as db:
            yield db
        return
    if not (settings.home / "postgres").exists():
        raise NotFound(f"There is no LabLink in {settings.home} yet; `lablink demo` or `lablink serve` makes one.")
    embedded = EmbeddedPostgres(settings.home)
    url = await embedded.start()
    try:
        if _is_free(settings.home):
            await migrate(url)
        async with _open(url) as db:
            yield db
    finally:
        # Asked only now: the server may have ended, or come, in the meantime.
        try:
            with alone_in(settings.home):
                await embedded.stop()
        except Conflict:
            pass


@asynccontextmanager
async def _open(url: str) -> AsyncIterator[Database]:
    db = Database(url, pool_size=4)
    try:
        async with db.transaction() as session:
            if await session.scalar(text("SELECT to_regclass('invites')")) is None:
                raise NotFound("This database lacks this version's schema: run `lablink migrate` first.")
        yield db
    finally:
        await db.close()


def _is_free(home: Path) -> bool:
    try:
        with alone_in(home):
            return True
    except Conflict:
        return False
