"""Replacements: failed machines are destroyed in one operation, and others launched in another, within the ceiling.

A machine that the refill of the pool has launched meanwhile stands in for one that failed: nothing is made twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Operation, OperationVm, Pool, Repair, Vm
from backend.services.destroys import destroy_locked
from backend.services.fuses import find_fuse
from backend.services.healing_cases import FULL, Patient, count_room
from backend.services.healing_limits import HealingLimits
from backend.services.operations import launch
from backend.services.refills import RULE as REFILL_RULE
from backend.services.repairs import RULE, Verdict
from backend.states import OperationKind, PoolStatus, RepairFault, RepairOutcome, VmStatus

_LIVING = (VmStatus.PROVISIONING, VmStatus.BOOTING, VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING)
_WELL = {VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING}
_COMING = {VmStatus.PROVISIONING, VmStatus.BOOTING}
_ON_ITS_WAY_OUT = {VmStatus.DESTROYING, VmStatus.QUARANTINED}


async def begin_replacing(
    session: AsyncSession, db: Database, pool: Pool, replaced: Sequence[tuple[Repair, Patient]], limits: HealingLimits
) -> None:
    """Destroys failed machines (not those that are kept) and launches as many as there is room for by now."""
    going = [patient.vm for _, patient in replaced if not patient.case.is_kept]
    if going:
        await destroy_locked(session, db, going, RULE)
    await launch_missing(session, db, pool, [repair for repair, _ in replaced], limits)


async def launch_missing(
    session: AsyncSession, db: Database, pool: Pool, repairs: Sequence[Repair], limits: HealingLimits
) -> int:
    """Gives each of these attempts a machine, as far as there is room: one that stands ready, or a new one.

    Returns how many were launched.
    """
    await session.flush()
    left = [each for each in repairs if not await _adopt(session, each, limits)]
    count = min(len(left), await count_room(session, pool))
    if count < 1 or await find_fuse(session, pool):
        return 0
    operation = await launch(session, db, pool, count, actor=RULE)
    made = select(OperationVm.vm_id).where(OperationVm.operation_id == operation.id).order_by(OperationVm.vm_id)
    for repair, vm_id in zip(left, await session.scalars(made), strict=False):
        repair.replacement_id, repair.deadline_at = vm_id, db.now() + timedelta(seconds=limits.replace_s)
    await session.flush()
    return count


async def settle_replacement(session: AsyncSession, pool: Pool, repair: Repair, vm: Vm, at: datetime) -> Verdict | None:
    """How a replacement of a locked VM has ended, if it has."""
    if repair.replacement_id is None:
        return await _settle_destroy(session, pool, repair, vm)
    other = await session.get_one(Vm, repair.replacement_id)
    status = VmStatus(other.status)
    if status in _WELL:
        return Verdict(RepairOutcome.SUCCEEDED, reason=f"{other.hostname} is in its place")
    if status in _COMING and at < repair.deadline_at:
        return None
    if status is VmStatus.FAILED or status in _COMING:
        was_made = other.first_heartbeat_at is not None or other.facts.get("failed_by") == "boot_deadline"
        fault = RepairFault.NOT_WELL if was_made or status in _COMING else RepairFault.NOT_MADE
        return Verdict(RepairOutcome.FAILED, fault, f"{other.hostname}: {other.reason or f'still {status}'}")
    return Verdict(RepairOutcome.OVERTAKEN, reason=f"{other.hostname}, launched in its place, is {status} now")


async def _settle_destroy(session: AsyncSession, pool: Pool, repair: Repair, vm: Vm) -> Verdict | None:
    status = VmStatus(vm.status)
    if status is VmStatus.FAILED and await session.scalar(_find_destroy(repair)) is not None:
        return Verdict(RepairOutcome.FAILED, RepairFault.NOT_DESTROYED, vm.reason)
    if status in _ON_ITS_WAY_OUT:
        return None
    if status is not VmStatus.DESTROYED:
        return Verdict(RepairOutcome.OVERTAKEN, reason=f"it is {status} now")
    if pool.status != PoolStatus.OPEN:
        return Verdict(RepairOutcome.OVERTAKEN, reason="the pool is closed")
    if fuse := await find_fuse(session, pool):
        return Verdict(RepairOutcome.OVERTAKEN, reason=fuse)
    if await count_room(session, pool) < 1:
        return Verdict(RepairOutcome.OVERTAKEN, reason=FULL)
    return None


async def _adopt(session: AsyncSession, repair: Repair, limits: HealingLimits) -> bool:
    """Whether a machine stands in for this one already: its own of an earlier attempt, or one of the refill's."""
    earlier = (
        select(Repair.replacement_id)
        .join(Vm, Vm.id == Repair.replacement_id)
        .where(Repair.vm_id == repair.vm_id, Vm.status.in_(_LIVING))
        .limit(1)
    )
    found = await session.scalar(earlier)
    if found is None:
        first = select(func.min(Repair.began_at)).where(
            Repair.vm_id == repair.vm_id, Repair.began_at > repair.began_at - timedelta(seconds=limits.memory_s)
        )
        began_at = await session.scalar(first) or repair.began_at
        vm = await session.get_one(Vm, repair.vm_id)
        # It failed that long before it was first mended; a refill makes up for a silent one before that.
        failed_at = began_at - timedelta(seconds=limits.after_s)
        since = min(vm.unreachable_since or failed_at, failed_at)
        found = await session.scalar(_find_spare(repair.pool_id, since))
    if found is None:
        return False
    repair.replacement_id = found
    await session.flush()
    return True


def _find_spare(pool_id: int, since: datetime) -> Select[int]:
    taken = select(Repair.id).where(Repair.replacement_id == Vm.id).exists()
    return (
        select(Vm.id)
        .join(OperationVm, OperationVm.vm_id == Vm.id)
        .join(Operation, Operation.id == OperationVm.operation_id)
        .where(
            Vm.pool_id == pool_id,
            Vm.status.in_(_LIVING),
            Vm.created_at >= since,
            Operation.kind == OperationKind.LAUNCH,
            Operation.requested_by == REFILL_RULE.name,
            ~taken,
        )
        .order_by(Vm.id)
        .limit(1)
    )


def _find_destroy(repair: Repair) -> Select[int]:
    return (
        select(Operation.id)
        .join(OperationVm, OperationVm.operation_id == Operation.id)
        .where(
            OperationVm.vm_id == repair.vm_id,
            Operation.kind == OperationKind.DESTROY,
            Operation.created_at >= repair.began_at,
        )
        .limit(1)
    )
