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

from backend.db.embedded import EmbeddedPostgres
from backend.db.migrate import migrate


def prepare(home: Path) -> None:
    """Puts a migrated cluster there, unless there is one already."""
    if not (home / "postgres").exists():
        home.mkdir(parents=True, exist_ok=True)
        # With its owner, which is not root even where we are.
        subprocess.run(["cp", "-a", _make_once() / "postgres", home / "postgres"], check=True)


@functools.cache
def _make_once() -> Path:
    directory = tempfile.TemporaryDirectory(prefix="lablink-prepared-")
    _directories.append(directory)
    home = Path(directory.name)
    # A thread, since the one that asks may be running an event loop.
    thread = threading.Thread(target=lambda: asyncio.run(_make(home)))
    thread.start()
    thread.join()
    return home


async def _make(home: Path) -> None:
    embedded = EmbeddedPostgres(home)
    await migrate(await embedded.start())
    await embedded.stop()


_directories: list[tempfile.TemporaryDirectory[str]] = []
