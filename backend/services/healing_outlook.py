"""The outlook of a machine that failed: what is tried next by itself, and when; or why nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import HealingBreaker, Pool, Vm
from backend.services.healing import list_begun
from backend.services.healing_breakers import view_of_breaker
from backend.services.healing_cases import Patient, list_busy, list_patients
from backend.services.healing_ladder import find_room
from backend.services.healing_limits import HealingLimits
from backend.services.repairs import list_open_repairs
from backend.states import PoolStatus, Rung

WORDS = {
    Rung.RESTART: "a restart of its workload",
    Rung.REBOOT: "a reboot",
    Rung.REPLACE: "another machine in its place",
}


@dataclass(frozen=True, slots=True)
class Outlook:
    """A sentence, and the moment it speaks of, if it speaks of one."""

    sentence: str
    at: datetime | None = None


async def find_outlook(db: Database, vm_id: int, limits: HealingLimits) -> Outlook | None:
    """What comes next for a machine; None if it is well, or out of healing's hands, or being mended right now."""
    async with db.transaction() as session:
        vm = await session.get(Vm, vm_id)
        if vm is None:
            return None
        pool = await session.get_one(Pool, vm.pool_id)
        limits = limits.over(pool.healing)
        patients = await list_patients(session, pool, [vm], limits)
        return await _say(session, pool, patients[0], limits, db.now()) if patients else None


async def list_given_up(
    session: AsyncSession, pool: Pool, vms: Sequence[Vm], limits: HealingLimits, at: datetime
) -> list[Vm]:
    """Those of these failed VMs of a pool for which nothing is done by itself, now or once their turn comes."""
    limits = limits.over(pool.healing)
    open_now, began = await list_open_repairs(session, pool.id), await list_begun(session, pool.id, at)
    _, room_at = find_room(len(open_now), began, limits, at)
    is_stopped = view_of_breaker(await session.get(HealingBreaker, pool.id)) is not None
    busy = await list_busy(session, [vm.id for vm in vms])
    if pool.status != PoolStatus.OPEN or is_stopped or limits.per_hour < 1 or room_at is not None:
        return [vm for vm in vms if vm.id not in busy]
    patients = await list_patients(session, pool, vms, limits)
    helped = {each.vm.id for each in patients if each.step.rung and not each.held}
    return [vm for vm in vms if vm.id not in busy | helped]


async def _say(session: AsyncSession, pool: Pool, patient: Patient, limits: HealingLimits, at: datetime) -> Outlook:
    step = patient.step
    if pool.status != PoolStatus.OPEN:
        return Outlook("Nothing is tried by itself: the pool is closed.")
    if step.rung is None:
        return Outlook(f"{step.why[:1].upper()}{step.why[1:]}.")
    if patient.held:
        return Outlook(f"Next would be {WORDS[step.rung]}, but: {patient.held.rstrip('.')}.")
    breaker = view_of_breaker(await session.get(HealingBreaker, pool.id))
    if breaker is not None:
        return Outlook("Healing stopped in this pool; one of its machines is tried again", max(breaker.trial_at, at))
    open_now = await list_open_repairs(session, pool.id)
    room, room_at = find_room(len(open_now), await list_begun(session, pool.id, at), limits, at)
    if room < 1 and room_at is None:
        return Outlook(f"Next is {WORDS[step.rung]}, once fewer machines are mended at once.")
    return Outlook(f"Next is {WORDS[step.rung]}", max(step.at, room_at or at, at))
