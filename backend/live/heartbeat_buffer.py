"""The heartbeat buffer: many agents, one batched write after another; of each VM what it said last."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from itertools import islice, takewhile

from backend.db.engine import Database
from backend.errors import LabLinkError, Unavailable
from backend.services.health_limits import HealthLimits
from backend.services.heartbeats import HeartbeatReport, record_heartbeats

# Between two batches; and for how long plain repeats, which nobody awaits, wait for company.
FLUSH_S, REPEATS_S = 0.1, 1.0
# VMs in one batch.
MAX_BATCH = 200
RETRY_S = 1.0
# Of a VM that has said nothing for so long nothing is remembered: most of those will never speak again.
KEPT_S = 300.0


@dataclass(slots=True)
class _Taken:
    """What a VM said last, and who waits until this, or what it said before, is stored."""

    report: HeartbeatReport
    gist: Hashable
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class HeartbeatBuffer:
    """Takes reports and writes them together. ``run`` is its one task."""

    def __init__(self, db: Database, limits: HealthLimits = HealthLimits()) -> None:
        self._db = db
        self._limits = limits
        self._pending: dict[int, _Taken] = {}
        self._filled, self._hurry = asyncio.Event(), asyncio.Event()
        # Of each VM when and what; whoever spoke last stands last.
        self._stored: OrderedDict[int, tuple[float, Hashable]] = OrderedDict()
        self._is_broken = False

    async def add(self, report: HeartbeatReport) -> None:
        """Takes a report. One that may change something is awaited until stored; a plain repeat is not.

        Raises:
            Unavailable: Postgres does not answer, so nothing can be stored; the agent shall try again.
        """
        gist = _gist(report)
        _, known = self._stored.get(report.vm_id, (0.0, None))
        if known == gist:
            if self._is_broken:
                raise Unavailable("The database does not answer right now. Try again in a moment.", retry_after_s=2)
            # Nobody awaits a plain repeat: its failure is told by the next one.
            self._take(report, gist)
            return
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whoever awaits it may be gone by then.
        stored.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._take(report, gist).waiting.append(stored)
        self._hurry.set()
        await asyncio.shield(stored)

    def forget(self) -> None:
        """Treats every next report as news: after a gap nothing in memory is certain."""
        self._stored.clear()

    async def run(self) -> None:
        """Writes batches until cancelled."""
        while True:
            await self._filled.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REPEATS_S):
                    await self._hurry.wait()
            self._filled.clear()
            self._hurry.clear()
            batch = [self._pending.pop(vm_id) for vm_id in list(islice(self._pending, MAX_BATCH))]
            if self._pending:
                self._filled.set()
                self._hurry.set()
            await self._write(batch)
            await asyncio.sleep(RETRY_S if self._is_broken else FLUSH_S)

    def _take(self, report: HeartbeatReport, gist: Hashable) -> _Taken:
        taken = self._pending.get(report.vm_id)
        if taken is None:
            taken = self._pending[report.vm_id] = _Taken(report, gist)
            self._filled.set()
        else:
            taken.report, taken.gist = report, gist
        return taken

    async def _write(self, batch: list[_Taken]) -> None:
        try:
            await record_heartbeats(self._db, [taken.report for taken in batch], self._limits)
        except LabLinkError as exc:
            self._is_broken = True
            self.forget()
            _settle(batch, exc)
        except BaseException as exc:
            _settle(batch, Unavailable("This heartbeat could not be stored.", retry_after_s=2))
            if not isinstance(exc, asyncio.CancelledError):
                self.forget()
            raise
        else:
            self._is_broken = False
            self._remember(batch)
            _settle(batch, None)

    def _remember(self, batch: Iterable[_Taken]) -> None:
        now = time.monotonic()
        for taken in batch:
            self._stored[taken.report.vm_id] = now, taken.gist
            self._stored.move_to_end(taken.report.vm_id)
        for vm_id in list(takewhile(lambda vm_id: self._stored[vm_id][0] < now - KEPT_S, self._stored)):
            del self._stored[vm_id]


def _settle(batch: Iterable[_Taken], exc: Exception | None) -> None:
    for stored in (each for taken in batch for each in taken.waiting if not each.done()):
        if exc is None:
            stored.set_result(None)
        else:
            stored.set_exception(exc)


def _gist(report: HeartbeatReport) -> Hashable:
    return (
        report.enrolment_id,
        report.boot_id,
        report.phase,
        report.health,
        report.reasons,
        report.interruption_at,
        report.container and report.container.get("state"),
        tuple(gpu.get("error") for gpu in report.gpus),
    )
