"""Sweeps: the rules of time, applied again and again, where there is anything to apply them to.

Of several processes one leads and sweeps for all; when it dies another one does, within seconds. Each sweep is
idempotent all the same: for a moment two may believe that they lead.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection

from backend.db.engine import Database
from backend.db.notices import NoticeListener
from backend.db.presence import Presence
from backend.services.alarms import apply_rules, record_own
from backend.services.budgets import watch_budgets
from backend.services.claim_times import keep_times
from backend.services.claims import list_pools_waiting, serve_waiting
from backend.services.commands import expire_commands
from backend.services.duties import Duty, list_duties
from backend.services.healing import heal
from backend.services.healing_limits import HealingLimits
from backend.services.history import average_samples
from backend.services.refills import refill_pools
from backend.services.rescues import bring_back_seats, rescue_seats
from backend.services.retention import remove_old
from backend.services.runs import recover_runs, retry_stalled_jobs
from backend.services.schedule_runs import keep_schedules
from backend.services.vms import fail_overdue_vms, record_silence
from backend.settings import Settings
from backend.tasks.alarm_channels import AlarmChannels
from backend.tasks.owner import is_dead
from backend.tasks.rehearser import Rehearser
from backend.tasks.server_watch import ServerWatch
from backend.tasks.supervisor import Supervisor

STALLED_JOB_S = 15
# Sweeps that come at about the same time ask once what there is to do.
FRESH_S = 0.5


class Sweeps:
    """Starts the sweeps under a supervisor. ``running_here``: the operations this process is carrying out right now."""

    def __init__(
        self,
        db: Database,
        listener: NoticeListener,
        settings: Settings,
        running_here: Collection[int],
        watch: ServerWatch,
        presence: Presence,
    ) -> None:
        self._db = db
        self._settings = settings
        self._running_here = running_here
        self._hearing_since = time.monotonic()
        self._watch = watch
        self._presence = presence
        self._channels = AlarmChannels(db, settings)
        self._rehearser = Rehearser(db, settings)
        self._duties = _Duties(db)
        listener.subscribe(on_gap=self._hear_again)

    def start(self, supervisor: Supervisor) -> None:
        """Starts them all."""

        def sweep(name: str, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
            supervisor.start_every(f"sweep: {name}", every_s, self._presence.leading(work))

        def sweep_if(duty: Duty, every_s: float, work: Callable[[], Awaitable[None]]) -> None:
            sweep(duty, every_s, self._duties.if_due(duty, work))

        sweep_if(Duty.SILENCE, 2, self.sweep_silence)
        sweep_if(Duty.DEADLINES, 2, self.sweep_deadlines)
        sweep_if(Duty.LINES, 2, self.sweep_lines)
        sweep_if(Duty.SEATS, 2, self.sweep_seats)
        # In each process: whether a worker of this computer is dead, only this computer knows.
        supervisor.start_every(f"sweep: {Duty.RUNS}", 2, self._duties.if_due(Duty.RUNS, self.sweep_runs))
        sweep_if(Duty.REFILLS, 5, self.sweep_refills)
        sweep_if(Duty.HEALING, 3, self.sweep_healing)
        sweep_if(Duty.SCHEDULES, 5, self.sweep_schedules)
        sweep_if(Duty.REHEARSALS, 1, self._rehearser.carry_on)
        sweep_if(Duty.REPLAYS, 2, self._rehearser.replay)
        sweep("budgets", 15, self.sweep_budgets)
        sweep("averages", 60, self.sweep_averages)
        supervisor.start("event loop", self._watch.measure)
        supervisor.start_every("sweep: own alarms", 5, self.sweep_own_alarms)
        sweep("alarms", 5, self.sweep_alarms)
        self._channels.start(supervisor)
        sweep("retention", 3_600, self.sweep_retention)

    async def sweep_silence(self) -> None:
        """Marks silent VMs, but only once we ourselves have listened for long enough to know."""
        after_s = self._settings.agent.unreachable_after_s
        if time.monotonic() - self._hearing_since > after_s:
            await record_silence(self._db, after_s=after_s)

    async def sweep_deadlines(self) -> None:
        """Fails what took too long."""
        await expire_commands(self._db)
        await fail_overdue_vms(self._db)

    async def sweep_lines(self) -> None:
        """Lets in whoever waits although a VM is free; normally nobody, since each giver serves the line itself."""
        for pool_id in await list_pools_waiting(self._db):
            await serve_waiting(self._db, pool_id)

    async def sweep_seats(self) -> None:
        """Warns whose seat ends soon, and ends what is over."""
        await keep_times(self._db)

    async def sweep_runs(self) -> None:
        """Takes up the operations and jobs of workers that died."""
        await recover_runs(self._db, is_dead=is_dead, running_here=self._running_here)
        await retry_stalled_jobs(self._db, after_s=STALLED_JOB_S)

    async def sweep_refills(self) -> None:
        """Launches what pools with an ``available_min`` lack."""
        await refill_pools(self._db)

    async def sweep_healing(self) -> None:
        """Moves seats away from dead machines, and mends what failed."""
        limits = HealingLimits.of(self._settings.healing)
        await rescue_seats(self._db, limits, heard_for_s=time.monotonic() - self._hearing_since)
        await bring_back_seats(self._db)
        await heal(self._db, limits)

    async def sweep_schedules(self) -> None:
        """Begins and stops classes by the clock."""
        await keep_schedules(self._db, default_lead_s=self._settings.schedules.default_lead_s)

    async def sweep_budgets(self) -> None:
        """Tells of budgets that are being spent, and opens the fuse of those that are."""
        await watch_budgets(self._db)

    async def sweep_averages(self) -> None:
        """Makes averages of what was measured."""
        await average_samples(self._db)

    async def sweep_own_alarms(self) -> None:
        """Opens and resolves the alarms of which this process alone can know."""
        await record_own(self._db, self._watch.source, self._watch.look(), self._settings.alarms, self._channels.names)

    async def sweep_alarms(self) -> None:
        """Opens and resolves the others."""
        healing = HealingLimits.of(self._settings.healing)
        await apply_rules(self._db, self._settings.alarms, healing, self._channels.names)

    async def sweep_retention(self) -> None:
        """Cuts to size what grows without end."""
        kept = self._settings.retention
        await remove_old(
            self._db,
            samples_hours=kept.samples_hours,
            averages_days=kept.averages_days,
            log_days=kept.log_days,
            events_days=kept.events_days,
        )

    def _hear_again(self) -> None:
        self._hearing_since = time.monotonic()


class _Duties:
    """What there is to do, as it was a moment ago."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._asking = asyncio.Lock()
        self._due: frozenset[Duty] = frozenset()
        self._asked_at = -math.inf

    def if_due(self, duty: Duty, work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """``work``, where it may have something to do."""

        async def work_if_due() -> None:
            if duty in await self._list():
                await work()

        return work_if_due

    async def _list(self) -> frozenset[Duty]:
        async with self._asking:
            if time.monotonic() - self._asked_at > FRESH_S:
                self._due = await list_duties(self._db)
                self._asked_at = time.monotonic()
            return self._due
