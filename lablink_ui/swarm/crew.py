"""The processes of a swarm: started with their orders, heard, and ended for certain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from typing import Self

from lablink_ui.swarm.tally import Tally

END_S = 10.0
MAX_LINE = 2**20
ENDED = "swarm: a process ended"


class Crew:
    """Within the block they work; at its end none is left."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._processes: list[asyncio.subprocess.Process] = []
        self._listening: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            try:
                await asyncio.wait_for(process.wait(), END_S)
            except TimeoutError:
                process.kill()
                await process.wait()
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)

    async def start(self, order: bytes) -> None:
        """Starts one. Its order goes by its input: nobody reads secrets off a command line."""
        ours = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "lablink_ui.swarm.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=ours,
            limit=MAX_LINE,
            # Ctrl-C is for whoever gave the orders: machines leave before they end.
            start_new_session=True,
        )
        assert process.stdin is not None
        self._processes.append(process)
        self._listening.append(asyncio.create_task(self._listen(process)))
        process.stdin.write(order)
        await process.stdin.drain()

    async def tell(self, word: str) -> None:
        """Says a word to all."""
        for process in self._processes:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.write(f"{word}\n".encode())
                await process.stdin.drain()

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self._tally.take(line)
        if await process.wait() != 0:
            self._tally.fail(ENDED, f"status {process.returncode}; its last words stand above")
