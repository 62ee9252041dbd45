"""Healing: machines that failed are mended up their pool's ladder, side by side within its budget, by nobody's hand.

One transaction a pool: what was begun is settled, then as much is begun as the budget and the breaker let. All it
needs stands in the database, so that whoever is killed in the middle is followed by the next sweep.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import HealingBreaker, Pool, Repair, Vm
from backend.services.healing_breakers import watch_breaker
from backend.services.healing_cases import Patient, list_patients
from backend.services.healing_ladder import HOUR, find_room
from backend.services.healing_limits import HealingLimits
from backend.services.healing_marks import KEPT_FOR
from backend.services.moves import move_vm
from backend.services.repairs import RULE, Verdict, begin_repair, end_repair, list_open_repairs
from backend.services.replacements import begin_replacing, launch_missing, settle_replacement
from backend.services.rescues import release_kept
from backend.services.vms import boot_again, restart_workload
from backend.states import PoolStatus, RepairFault, RepairOutcome, Rung, VmStatus

_WELL = {VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING}


async def heal(db: Database, limits: HealingLimits) -> None:
    """Takes the next step in every pool in which there is something to mend."""
    async with db.transaction() as session:
        pool_ids = list(await session.scalars(_POOLS))
    for pool_id in pool_ids:
        await _heal_pool(db, pool_id, limits)


async def _heal_pool(db: Database, pool_id: int, limits: HealingLimits) -> None:
    async with db.transaction() as session:
        # Before its VMs, which are only locked where nobody else has them: so nobody waits for us in a circle. Whoever
        # claims is not held up by this lock.
        query = select(Pool).where(Pool.id == pool_id).with_for_update(key_share=True, skip_locked=True)
        pool = await session.scalar(query)
        if pool is not None:
            await _Round(session, db, pool, limits.over(pool.healing)).run()


class _Round:
    """One look at one pool."""

    def __init__(self, session: AsyncSession, db: Database, pool: Pool, limits: HealingLimits) -> None:
        self._session, self._db, self._pool, self._limits, self._at = session, db, pool, limits, db.now()

    async def run(self) -> None:
        vms = {vm.id: vm for vm in await self._session.scalars(_vms_to_look_at(self._pool.id))}
        open_now = [each for each in await self._settle(vms) if each.ended_at is None]
        await release_kept(self._session, list(vms.values()), at=self._at)
        await self._session.flush()
        breaker = await watch_breaker(self._session, self._pool, self._limits, self._at)
        if self._pool.status != PoolStatus.OPEN:
            return
        allowed = await self._count_allowed(open_now, breaker)
        pending = [each for each in open_now if each.rung == Rung.REPLACE and each.replacement_id is None]
        may_launch = allowed if breaker else len(pending)
        launched = await launch_missing(self._session, self._db, self._pool, pending[:may_launch], self._limits)
        await self._begin(vms, allowed - launched if breaker else allowed)

    async def _settle(self, vms: dict[int, Vm]) -> Sequence[Repair]:
        repairs = await list_open_repairs(self._session, self._pool.id)
        for repair in repairs:
            vm = vms.get(repair.vm_id)
            verdict = await self._judge(repair, vm) if vm else None
            if vm and verdict:
                end_repair(self._session, repair, vm, verdict, self._at)
        return repairs

    async def _judge(self, repair: Repair, vm: Vm) -> Verdict | None:
        """How an attempt has ended, if it has."""
        if repair.rung == Rung.REPLACE:
            return await settle_replacement(self._session, self._pool, repair, vm, self._at)
        status = VmStatus(vm.status)
        if status is VmStatus.BOOTING and self._at >= repair.deadline_at:
            vm.facts = {**vm.facts, "failed_by": "boot_deadline"}
            why = f"not ready {(self._at - repair.began_at).total_seconds():.0f} s after its {repair.rung}"
            known = f": {'; '.join(vm.health_reasons)}" if vm.health_reasons else ""
            move_vm(self._session, vm, VmStatus.FAILED, actor=RULE, at=self._at, reason=why + known)
            status = VmStatus.FAILED
        if status in _WELL:
            return Verdict(RepairOutcome.SUCCEEDED)
        if status is VmStatus.FAILED:
            return Verdict(RepairOutcome.FAILED, RepairFault.NOT_WELL, vm.reason)
        return None if status is VmStatus.BOOTING else Verdict(RepairOutcome.OVERTAKEN, reason=f"it is {status} now")

    async def _count_allowed(self, open_now: Sequence[Repair], breaker: HealingBreaker | None) -> int:
        if breaker is not None:
            under_way = any(each.rung != Rung.REPLACE or each.replacement_id is not None for each in open_now)
            return int(breaker.trial_at is not None and self._at >= breaker.trial_at and not under_way)
        began = await list_begun(self._session, self._pool.id, self._at)
        return find_room(len(open_now), began, self._limits, self._at)[0]

    async def _begin(self, vms: dict[int, Vm], allowed: int) -> None:
        if allowed < 1:
            return
        patients = await list_patients(self._session, self._pool, list(vms.values()), self._limits)
        due = [each for each in patients if each.step.rung and each.step.at <= self._at and not each.held]
        # Who is furthest up is tried on: so the one that the open breaker lets be tried is tried to the end.
        due.sort(key=lambda each: (-list(Rung).index(each.step.rung or Rung.RESTART), each.vm.id))
        replaced = []
        for each in due[:allowed]:
            repair = begin_repair(self._session, each.vm, each.step, self._limits, self._at)
            if each.step.rung is Rung.REPLACE:
                replaced.append((repair, each))
            else:
                await self._mend(each)
        if replaced:
            await begin_replacing(self._session, self._db, self._pool, replaced, self._limits)

    async def _mend(self, patient: Patient) -> None:
        if patient.step.rung is Rung.RESTART:
            await restart_workload(self._session, self._db, patient.vm, RULE)
        else:
            await boot_again(self._session, self._db, patient.vm, "reboot", RULE)


async def list_begun(session: AsyncSession, pool_id: int, at: datetime) -> Sequence[datetime]:
    """When the attempts of the last hour began in a pool."""
    query = select(Repair.began_at).where(Repair.pool_id == pool_id, Repair.began_at > at - HOUR)
    return (await session.scalars(query)).all()


def _vms_to_look_at(pool_id: int) -> Select[Vm]:
    is_mended = select(Repair.id).where(Repair.vm_id == Vm.id, Repair.ended_at.is_(None)).exists()
    is_kept = (Vm.status == VmStatus.QUARANTINED) & Vm.facts.has_key(KEPT_FOR)
    query = select(Vm).where(Vm.pool_id == pool_id, (Vm.status == VmStatus.FAILED) | is_kept | is_mended)
    return query.order_by(Vm.id).with_for_update(skip_locked=True)


_POOLS = text(f"""
SELECT pool_id FROM vms WHERE status = 'failed' OR (status = 'quarantined' AND facts ? '{KEPT_FOR}')
UNION SELECT pool_id FROM repairs WHERE ended_at IS NULL
UNION SELECT pool_id FROM healing_breakers WHERE opened_at IS NOT NULL
ORDER BY 1""")
