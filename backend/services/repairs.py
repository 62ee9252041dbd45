"""Repairs: what was tried on a machine, when, with what outcome; rows begun and ended by the healing of a pool."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from backend.db.engine import Database
from backend.models import Repair, Vm
from backend.redaction import redact
from backend.services.actor import Actor
from backend.services.healing_ladder import Attempt, Next
from backend.services.healing_limits import HealingLimits
from backend.services.moves import record_event
from backend.states import RepairFault, RepairOutcome, Rung

RULE = Actor.rule("heal")


@dataclass(frozen=True, slots=True)
class RepairView:
    """An attempt as people see it. ``outcome`` is None while it is under way, until ``deadline_at`` at the latest."""

    id: int
    rung: Rung
    cause: str | None
    began_at: datetime
    deadline_at: datetime
    ended_at: datetime | None
    outcome: RepairOutcome | None
    reason: str | None
    replacement: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attempt ended."""

    outcome: RepairOutcome
    fault: RepairFault | None = None
    reason: str | None = None


async def list_repairs(db: Database, vm_id: int, *, limit: int = 50) -> list[RepairView]:
    """The attempts on a VM, newest first."""
    other = aliased(Vm)
    query = (
        select(Repair, other.hostname)
        .select_from(Repair)
        .outerjoin(other, other.id == Repair.replacement_id)
        .where(Repair.vm_id == vm_id)
        .order_by(Repair.id.desc())
        .limit(limit)
    )
    async with db.transaction() as session:
        return [_view_of(row, hostname) for row, hostname in (await session.execute(query))]


async def list_attempts(session: AsyncSession, vm_ids: Collection[int]) -> dict[int, list[Attempt]]:
    """The attempts on these VMs that have ended, the newest first."""
    attempts: dict[int, list[Attempt]] = {vm_id: [] for vm_id in vm_ids}
    query = select(Repair).where(Repair.vm_id.in_(vm_ids), Repair.ended_at.is_not(None)).order_by(Repair.id.desc())
    for row in await session.scalars(query):
        assert row.ended_at is not None
        assert row.outcome is not None
        attempt = Attempt(Rung(row.rung), row.began_at, row.ended_at, RepairOutcome(row.outcome))
        attempts[row.vm_id].append(attempt)
    return attempts


def begin_repair(session: AsyncSession, vm: Vm, step: Next, limits: HealingLimits, at: datetime) -> Repair:
    """Writes down that a rung is begun on a locked VM, before it is."""
    assert step.rung is not None
    repair = Repair(
        pool_id=vm.pool_id,
        vm_id=vm.id,
        rung=step.rung,
        is_last=step.is_last,
        cause=vm.reason,
        began_at=at,
        deadline_at=at + limits.deadline_of(step.rung),
    )
    session.add(repair)
    message = f"Healing of {vm.hostname} by {step.rung}" + (f": {vm.reason}" if vm.reason else "")
    record_event(session, "vm.repair", message, actor=RULE, at=at, pool_id=vm.pool_id, vm_id=vm.id)
    return repair


def end_repair(session: AsyncSession, repair: Repair, vm: Vm, verdict: Verdict, at: datetime) -> None:
    """Writes down how an attempt on a locked VM ended."""
    repair.ended_at, repair.outcome, repair.fault = at, verdict.outcome, verdict.fault
    repair.reason = redact(verdict.reason) if verdict.reason else None
    message = f"Healing of {vm.hostname}: the {repair.rung} {_SAID[verdict.outcome]}"
    message += f": {verdict.reason}" if verdict.reason else ""
    kind = f"vm.repair_{verdict.outcome}"
    record_event(session, kind, message, actor=RULE, at=at, pool_id=vm.pool_id, vm_id=vm.id)


async def list_open_repairs(session: AsyncSession, pool_id: int) -> Sequence[Repair]:
    """Those under way in a pool."""
    query = select(Repair).where(Repair.pool_id == pool_id, Repair.ended_at.is_(None)).order_by(Repair.id)
    return (await session.scalars(query)).all()


_SAID = {
    RepairOutcome.SUCCEEDED: "helped",
    RepairOutcome.FAILED: "did not help",
    RepairOutcome.OVERTAKEN: "was overtaken",
}


def _view_of(row: Repair, replacement: str | None) -> RepairView:
    return RepairView(
        id=row.id,
        rung=Rung(row.rung),
        cause=row.cause,
        began_at=row.began_at,
        deadline_at=row.deadline_at,
        ended_at=row.ended_at,
        outcome=RepairOutcome(row.outcome) if row.outcome else None,
        reason=row.reason,
        replacement=replacement,
    )
