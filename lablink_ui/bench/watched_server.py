"""`lablink` with two things more: it writes down by how much its event loop is late, 50 times a second, and for how
long each collection of garbage holds it.

Run as a file, not as a module: it may watch the server of another commit, which has no such file.
"""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

EVERY_S = 0.02
# When (by the machine's monotonic clock), and how late, or for how long; both in seconds.
SAMPLE = struct.Struct("dd")
FILE, PAUSES = "BENCH_LAGS", ".pauses"


async def _watch(file: Path) -> None:
    with file.open("wb", buffering=0) as out:
        while True:
            due = time.monotonic() + EVERY_S
            await asyncio.sleep(EVERY_S)
            out.write(SAMPLE.pack(due, time.monotonic() - due))


def _watch_collections(file: Path) -> None:
    out, began = file.open("wb", buffering=0), [0.0]

    def note(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            began[0] = time.monotonic()
        else:
            out.write(SAMPLE.pack(began[0], time.monotonic() - began[0]))

    gc.callbacks.append(note)


def read_samples(file: Path, *, since: float) -> list[float]:
    """How late, or for how long (seconds), since a moment of the monotonic clock."""
    content = file.read_bytes()
    whole = content[: len(content) // SAMPLE.size * SAMPLE.size]
    return [lag for due, lag in SAMPLE.iter_unpack(whole) if due + lag >= since]


def main() -> int:
    """Runs `lablink` with the arguments of this program."""
    from lablink_ui.cli import main as lablink

    file = Path(os.environ.pop(FILE))
    startup, tasks = uvicorn.Server.startup, []

    async def start_watched(self: Any, *args: Any, **options: Any) -> None:
        tasks.append(asyncio.create_task(_watch(file)))
        _watch_collections(file.with_suffix(PAUSES))
        await startup(self, *args, **options)

    uvicorn.Server.startup = start_watched  # type: ignore[method-assign]
    return lablink(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
