"""Cases: which machines of a pool are to be mended, what comes next for each, and what holds it up."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from backend.models import Operation, OperationVm, Pool, Repair, Vm
from backend.services.fuses import find_fuse
from backend.services.healing_ladder import Case, Next, find_next
from backend.services.healing_limits import HealingLimits
from backend.services.healing_marks import KEPT_FOR, REPLACE_ONLY
from backend.services.refills import RULE as REFILL_RULE
from backend.services.repairs import RULE, list_attempts
from backend.services.sessions import DRAINED_BY, UNCLEAN
from backend.states import (
    GONE_VM,
    OPEN_OPERATION,
    OperationKind,
    OperationStatus,
    Origin,
    ProgressState,
    Rung,
    VmStatus,
)

FULL = "the pool has all the machines that it may have"
_OURS = {RULE.name, REFILL_RULE.name}


_Launch = Row[int, str, str, str]


@dataclass(frozen=True, slots=True)
class Patient:
    """A machine that is to be mended. ``held``: what keeps the next step from being taken, if something does."""

    vm: Vm
    case: Case
    step: Next
    held: str = ""


async def list_patients(session: AsyncSession, pool: Pool, vms: Sequence[Vm], limits: HealingLimits) -> list[Patient]:
    """Those of these VMs of a pool that healing answers for and is not at already."""
    sick = [vm for vm in vms if _is_sick(vm)]
    if not sick:
        return []
    ids = [vm.id for vm in sick]
    busy, launches = await list_busy(session, ids), await _list_launches(session, ids)
    attempts, fuse = await list_attempts(session, ids), await find_fuse(session, pool)
    room = await count_room(session, pool)
    patients = []
    for vm in sick:
        launch = launches.get(vm.id)
        if vm.id in busy or not _is_for_us(vm, launch):
            continue
        case = _case_of(vm, launch)
        step = find_next(case, attempts[vm.id], limits)
        if case.is_kept and any(each.rung is Rung.REPLACE for each in attempts[vm.id]):
            # Another one was launched for it; what becomes of itself is not ours to say.
            continue
        # A machine that stays makes no room for the one in its place.
        held = FULL if case.is_kept and room < 1 else (fuse or "") if step.rung is Rung.REPLACE else ""
        room -= case.is_kept and not held
        patients.append(Patient(vm, case, step, held))
    return patients


async def count_room(session: AsyncSession, pool: Pool) -> int:
    """How many more machines the pool may have."""
    living = select(func.count()).where(Vm.pool_id == pool.id, Vm.status.not_in(GONE_VM))
    return pool.max - (await session.scalar(living) or 0)


def _is_sick(vm: Vm) -> bool:
    if DRAINED_BY in vm.facts:
        # An admin takes it out of the pool.
        return False
    return vm.status == VmStatus.FAILED or (vm.status == VmStatus.QUARANTINED and KEPT_FOR in vm.facts)


def _is_for_us(vm: Vm, launch: _Launch | None) -> bool:
    """What an admin's launch did not finish is that launch's, or the next one's, which makes it anew."""
    if _is_whole(vm, launch):
        return True
    return launch is not None and launch.requested_by in _OURS and launch.status == OperationStatus.FAILED


def _is_whole(vm: Vm, launch: _Launch | None) -> bool:
    is_made = launch is not None and launch.state == ProgressState.DONE
    return is_made or vm.first_heartbeat_at is not None or vm.origin == Origin.JOINED


def _case_of(vm: Vm, launch: _Launch | None) -> Case:
    return Case(
        failed_at=vm.status_changed_at,
        is_heard=vm.unreachable_since is None and vm.first_heartbeat_at is not None,
        is_whole=_is_whole(vm, launch),
        must_go=bool(vm.facts.get(REPLACE_ONLY)) or vm.facts.get("failed_by") == UNCLEAN,
        is_kept=vm.status == VmStatus.QUARANTINED,
        is_ours=vm.origin == Origin.TERRAFORM,
    )


async def list_busy(session: AsyncSession, vm_ids: Collection[int]) -> frozenset[int]:
    """Those that an operation or another attempt is at."""
    in_operation = (
        select(OperationVm.vm_id)
        .join(Operation, Operation.id == OperationVm.operation_id)
        .where(OperationVm.vm_id.in_(vm_ids), Operation.status.in_(OPEN_OPERATION))
    )
    in_repair = select(Repair.vm_id).where(Repair.vm_id.in_(vm_ids), Repair.ended_at.is_(None))
    # Whoever stands in for another is judged there first.
    stands_in = select(Repair.replacement_id).where(Repair.replacement_id.in_(vm_ids), Repair.ended_at.is_(None))
    return frozenset(await session.scalars(in_operation.union(in_repair, stands_in)))


async def _list_launches(session: AsyncSession, vm_ids: Collection[int]) -> Mapping[int, _Launch]:
    """The last launch of each of these VMs."""
    query = (
        select(OperationVm.vm_id, OperationVm.state, Operation.requested_by, Operation.status)
        .join(Operation, Operation.id == OperationVm.operation_id)
        .ext(distinct_on(OperationVm.vm_id))
        .where(OperationVm.vm_id.in_(vm_ids), Operation.kind == OperationKind.LAUNCH)
        .order_by(OperationVm.vm_id, Operation.id.desc())
    )
    return {row.vm_id: row for row in await session.execute(query)}
