"""The rules of alarms: what stands in the database right now that somebody should look at, one function a kind.

Each says what it sees, never what was seen before; ``backend.services.alarms`` makes alarms of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession

from backend.models import Budget, Claim, HealingBreaker, Operation, Pool, Vm
from backend.services.healing_limits import HealingLimits
from backend.services.healing_outlook import list_given_up
from backend.services.refills import RULE as REFILL_RULE
from backend.services.refills import count_failed_refills
from backend.setting_keys import AlarmSettings
from backend.states import GONE_VM, AlarmKind, ClaimStatus, OperationStatus, PoolStatus, Severity, VmStatus

# A run that failed longer ago than this and was not tried again is history.
OPERATION_MATTERS_H = 24
# One failed refill is tried again within half a minute.
FAILED_REFILLS = 2
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """Something that is the case now. ``subject`` names it within its kind."""

    kind: AlarmKind
    subject: str
    severity: Severity
    sentence: str
    remedy: str
    pool_id: int | None = None
    operation_id: int | None = None


Rule = Callable[[AsyncSession, datetime, AlarmSettings], Awaitable[list[Seen]]]


async def see_all(session: AsyncSession, at: datetime, limits: AlarmSettings, healing: HealingLimits) -> list[Seen]:
    """What all the rules see."""
    failed = await see_failed_machines(session, at, limits, healing)
    return failed + [seen for rule in RULES for seen in await rule(session, at, limits)]


async def see_failed_machines(
    session: AsyncSession, at: datetime, limits: AlarmSettings, healing: HealingLimits
) -> list[Seen]:
    """Machines that have failed and that nothing mends, one alarm a pool; critical once half of the pool is.

    One that is being mended, or waits for its turn, is among them only after a longer while.
    """
    long_ago = at - timedelta(seconds=limits.failed_after_s)
    query = select(Vm).where(Vm.status == VmStatus.FAILED, Vm.status_changed_at <= long_ago)
    failed: dict[int, list[Vm]] = {}
    for vm in await session.scalars(query.order_by(Vm.pool_id, Vm.id)):
        failed.setdefault(vm.pool_id, []).append(vm)
    too_long_ago = at - timedelta(seconds=limits.mending_after_s)
    by_pool: dict[int, list[tuple[str, str | None]]] = {}
    for pool_id, vms in failed.items():
        pool = await session.get_one(Pool, pool_id)
        given_up = {vm.id for vm in await list_given_up(session, pool, vms, healing, at)}
        ringing = [vm for vm in vms if vm.id in given_up or vm.status_changed_at <= too_long_ago]
        if ringing:
            by_pool[pool_id] = [(vm.hostname, vm.reason) for vm in ringing]
    if not by_pool:
        return []
    living = (
        select(Pool.id, Pool.name, func.count(Vm.id))
        .join(Vm, Vm.pool_id == Pool.id)
        .where(Pool.id.in_(by_pool), ~Pool.is_rehearsal, Vm.status.not_in(GONE_VM))
        .group_by(Pool.id)
        .order_by(Pool.name)
    )
    return [_failed_in(*row, failed=by_pool[row[0]]) for row in await session.execute(living)]


async def see_stuck_refills(session: AsyncSession, at: datetime, limits: AlarmSettings) -> list[Seen]:
    """Pools that shall hold free machines and do not get them. (That a budget forbids it is the budget's alarm.)"""
    free = func.count(Vm.id).filter(Vm.status == VmStatus.AVAILABLE, Vm.unreachable_since.is_(None))
    wanting = (
        select(Pool, free, func.count(Vm.id))
        .outerjoin(Vm, (Vm.pool_id == Pool.id) & Vm.status.not_in(GONE_VM))
        .where(Pool.status == PoolStatus.OPEN, Pool.available_min > 0)
        .group_by(Pool.id)
        .having(free < Pool.available_min)
        .order_by(Pool.name)
    )
    found = []
    for pool, free_now, living in (await session.execute(wanting)).all():
        failures, _ = await count_failed_refills(session, pool.id)
        has = f"Pool {pool.name} has {free_now} of the {pool.available_min} free machines that it shall hold"
        if failures >= FAILED_REFILLS:
            why, remedy = f"its last {failures} launches failed", "Open the last launch of the pool and see why."
            found.append(_of_pool(AlarmKind.REFILL, pool, Severity.CRITICAL, f"{has}: {why}.", remedy))
        elif living >= pool.max:
            why, remedy = f"all {pool.max} that it may have exist", "Raise the pool's maximum, or end seats."
            found.append(_of_pool(AlarmKind.REFILL, pool, Severity.INFO, f"{has}: {why}.", remedy))
    return found


async def see_lines(session: AsyncSession, at: datetime, limits: AlarmSettings) -> list[Seen]:
    """Lines that are too long, or in which somebody has waited too long."""
    query = (
        select(Pool, func.count(Claim.id), func.min(Claim.status_changed_at))
        .join(Claim, Claim.pool_id == Pool.id)
        .where(Claim.status == ClaimStatus.WAITING, ~Pool.is_rehearsal)
        .group_by(Pool.id)
        .order_by(Pool.name)
    )
    found = []
    for pool, people, since in await session.execute(query):
        waited_s = (at - since).total_seconds()
        if people >= limits.line_people or waited_s >= limits.line_wait_s:
            who = "1 person waits" if people == 1 else f"{people} people wait"
            sentence = f"{who} for a machine of pool {pool.name}, the first of them for {int(waited_s // 60)} min."
            remedy = "Launch more machines, or free some that nobody uses."
            found.append(_of_pool(AlarmKind.LINE, pool, Severity.WARNING, sentence, remedy))
    return found


async def see_failed_operations(session: AsyncSession, at: datetime, limits: AlarmSettings) -> list[Seen]:
    """Operations that failed and are the latest of their kind in their pool. (Refills have an alarm of their own.)"""
    latest = (
        select(Operation, Pool)
        .join(Pool, Pool.id == Operation.pool_id)
        .ext(distinct_on(Operation.pool_id, Operation.kind))
        .where(
            Operation.status.in_((OperationStatus.SUCCEEDED, OperationStatus.FAILED)),
            Operation.finished_at > at - timedelta(hours=OPERATION_MATTERS_H),
            Operation.requested_by != REFILL_RULE.name,
        )
        .order_by(Operation.pool_id, Operation.kind, Operation.finished_at.desc(), Operation.id.desc())
    )
    rows = (await session.execute(latest)).all()
    return [
        _failed_operation(row.Operation, row.Pool) for row in rows if row.Operation.status == OperationStatus.FAILED
    ]


async def see_budgets(session: AsyncSession, at: datetime, limits: AlarmSettings) -> list[Seen]:
    """Budgets of which a good part is spent; one whose fuse an admin has lifted is known to be."""
    query = (
        select(Budget, Pool)
        .join(Pool, Pool.id == Budget.pool_id)
        .where(Budget.warned_pct > 0, Budget.lifted_at.is_(None))
        .order_by(Pool.name)
    )
    return [_spent(row.Budget, row.Pool) for row in (await session.execute(query)).all()]


async def see_stopped_healing(session: AsyncSession, at: datetime, limits: AlarmSettings) -> list[Seen]:
    """Pools whose machines are not mended any more, since too many attempts failed alike."""
    query = (
        select(HealingBreaker, Pool)
        .join(Pool, Pool.id == HealingBreaker.pool_id)
        .where(HealingBreaker.opened_at.is_not(None), Pool.status == PoolStatus.OPEN)
        .order_by(Pool.name)
    )
    remedy = "Their pages say what was tried. One is tried again from time to time; its success ends this by itself."
    return [
        _of_pool(
            AlarmKind.HEALING,
            pool,
            Severity.CRITICAL,
            f"Machines of pool {pool.name} are not mended by themselves any more: {breaker.reason}.",
            remedy,
        )
        for breaker, pool in (await session.execute(query)).all()
    ]


RULES: Sequence[Rule] = (
    see_stuck_refills,
    see_lines,
    see_failed_operations,
    see_budgets,
    see_stopped_healing,
)


def _failed_in(pool_id: int, pool: str, living: int, failed: Sequence[tuple[str, str | None]]) -> Seen:
    names = ", ".join(name for name, _ in failed[:_NAMED])
    more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
    has = f"{len(failed)} of {living} machines of pool {pool} " + ("has" if len(failed) == 1 else "have")
    reasons = Counter(reason for _, reason in failed if reason).most_common(1)
    why = f" ({reasons[0][0]})" if reasons else ""
    return Seen(
        AlarmKind.MACHINE_FAILED,
        pool,
        Severity.CRITICAL if 2 * len(failed) >= living else Severity.WARNING,
        f"{has} failed: {names}{more}{why}.",
        "Repair them, or destroy them and launch others.",
        pool_id=pool_id,
    )


def _failed_operation(operation: Operation, pool: Pool) -> Seen:
    why = f": {operation.reason}" if operation.reason else ""
    return Seen(
        AlarmKind.OPERATION_FAILED,
        f"operation {operation.id}",
        Severity.WARNING,
        f"The {operation.kind} in pool {pool.name} failed{why}.",
        "Read its log, mend what it names, and try again: the next that succeeds ends this alarm.",
        pool_id=pool.id,
        operation_id=operation.id,
    )


def _spent(budget: Budget, pool: Pool) -> Seen:
    if budget.fused_at is not None:
        severity, then = Severity.CRITICAL, "nothing more is launched in it"
    else:
        severity, then = (
            (Severity.WARNING if budget.warned_pct >= 80 else Severity.INFO),
            "it goes on until all is spent",
        )
    sentence = f"{budget.warned_pct} % of the budget of pool {pool.name} (${budget.dollars:,.2f}) is spent: {then}."
    remedy = "On the page Schedules an admin sets another budget, or lifts the fuse once it is open."
    return _of_pool(AlarmKind.BUDGET, pool, severity, sentence, remedy)


def _of_pool(kind: AlarmKind, pool: Pool, severity: Severity, sentence: str, remedy: str) -> Seen:
    return Seen(kind, pool.name, severity, sentence, remedy, pool_id=pool.id)
