"""The log buffer: lines of many agents, one batched write after another. Agents wait for it: an answer is a receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from backend.db.engine import Database
from backend.errors import LabLinkError, Unavailable
from backend.services.vm_logs import LogBatch, LogBounds, record_vm_logs

# Between two writes: what comes meanwhile goes together.
FLUSH_S = 0.1
MAX_LINES = 10_000
# Of lines that wait to be written; beyond it agents keep theirs for a while.
MAX_WAITING_CHARS = 32_000_000

_Taken = tuple[LogBatch, asyncio.Future[None]]


class LogBuffer:
    """Takes batches and writes them together. ``run`` is its one task. ``secrets``: ours, by value."""

    def __init__(self, db: Database, bounds: LogBounds = LogBounds(), secrets: Collection[str] = ()) -> None:
        self._db, self._bounds, self._secrets = db, bounds, secrets
        self._waiting: list[_Taken] = []
        self._chars = 0
        self._filled = asyncio.Event()

    async def add(self, batch: LogBatch) -> None:
        """Takes a batch and returns once it is stored.

        Raises:
            Unavailable: it could not be; the agent shall send it again.
            InvalidInput: it cannot be.
        """
        if self._chars > MAX_WAITING_CHARS:
            raise Unavailable("Too many logs come in at once. Try again in a moment.", retry_after_s=2)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whoever awaits it may be gone by then.
        stored.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._waiting.append((batch, stored))
        self._chars += _chars_of(batch)
        self._filled.set()
        await asyncio.shield(stored)

    async def run(self) -> None:
        """Writes until cancelled."""
        while True:
            await self._filled.wait()
            taken = self._take()
            await self._write(taken)
            await asyncio.sleep(FLUSH_S)

    def _take(self) -> list[_Taken]:
        lines, count = 0, 0
        for batch, _ in self._waiting:
            lines += len(batch.lines)
            if count and lines > MAX_LINES:
                break
            count += 1
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        self._chars -= sum(_chars_of(batch) for batch, _ in taken)
        if not self._waiting:
            self._filled.clear()
        return taken

    async def _write(self, taken: list[_Taken]) -> None:
        refusals: list[LabLinkError | None]
        try:
            refusals = await record_vm_logs(
                self._db, [batch for batch, _ in taken], self._bounds, secrets=self._secrets
            )
        except LabLinkError as exc:
            refusals = [exc] * len(taken)
        except BaseException:
            _settle(taken, [Unavailable("These lines could not be stored.", retry_after_s=2)] * len(taken))
            raise
        _settle(taken, refusals)


def _chars_of(batch: LogBatch) -> int:
    return sum(map(len, batch.lines))


def _settle(taken: list[_Taken], refusals: list[LabLinkError | None] | list[Unavailable]) -> None:
    for (_, stored), refusal in zip(taken, refusals, strict=True):
        if stored.done():
            continue
        if refusal is None:
            stored.set_result(None)
        else:
            stored.set_exception(refusal)
