"""A data directory as a first start leaves it: making it costs more than all the rest of a start.

Tests of the first start itself start the command, on an empty directory.
"""

from __future__ import annotations

import asyncio
import functools
import subprocess
import tempfile
import threading
from pathlib import Path

from sqlalchemy import update

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.db.migrate import migrate
from backend.models.user import User
from backend.services.sign_in import ensure_first_admin
from tests.harness.quick_passwords import QUICK


def prepare(home: Path, password: str) -> None:
    """Puts a migrated cluster there, with the first admin, unless there is one already."""
    if not (home / "postgres").exists():
        home.mkdir(parents=True, exist_ok=True)
        # With its owner, which is not root even where we are.
        subprocess.run(["cp", "-a", _make_once(password) / "postgres", home / "postgres"], check=True)


@functools.cache
def _make_once(password: str) -> Path:
    directory = tempfile.TemporaryDirectory(prefix="lablink-prepared-")
    _directories.append(directory)
    home = Path(directory.name)
    # A thread, since the one that asks may be running an event loop.
    thread = threading.Thread(target=lambda: asyncio.run(_make(home, password)))
    thread.start()
    thread.join()
    return home


async def _make(home: Path, password: str) -> None:
    embedded = EmbeddedPostgres(home)
    url = await embedded.start()
    await migrate(url)
    db = Database(url)
    await ensure_first_admin(db, password)
    async with db.transaction() as session:
        await session.execute(update(User).values(password_hash=QUICK.hash(password)))
    await db.close()
    await embedded.stop()


_directories: list[tempfile.TemporaryDirectory[str]] = []
