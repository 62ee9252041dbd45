"""Robots: claims that a rehearsal makes, each on one machine. They give way to people, and none outlives it."""

from __future__ import annotations

from sqlalchemy import exists, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Claim, Rehearsal, RehearsalMachine, Vm
from backend.services.actor import Actor
from backend.services.emails import ROBOTS, robot_email
from backend.services.sessions import lock_claim, seat_at, vacate
from backend.states import OPEN_CLAIM, ClaimStatus, Health, RehearsalStatus, RehearsalStep, VmStatus

RULE = Actor.rule("rehearsal")
# Steps in which a robot holds the machine.
HOLDING = (RehearsalStep.CLAIMED, RehearsalStep.CONNECTED, RehearsalStep.CHECKED)


def is_fit(vm: Vm) -> bool:
    """Whether a person would be given this VM now."""
    return vm.status == VmStatus.AVAILABLE and vm.unreachable_since is None and vm.health != Health.UNHEALTHY


async def count_waiting(session: AsyncSession, pool_id: int) -> int:
    """How many people stand in line."""
    waiting = select(func.count()).where(Claim.pool_id == pool_id, Claim.status == ClaimStatus.WAITING)
    return await session.scalar(waiting) or 0


async def seat_robot(session: AsyncSession, db: Database, vm: Vm) -> int | None:
    """Claims a locked VM for a robot. Returns the claim, or None where a person comes first."""
    if not is_fit(vm) or await count_waiting(session, vm.pool_id):
        return None
    at = db.now()
    claim = Claim(
        pool_id=vm.pool_id,
        email=robot_email(vm.hostname),
        status=ClaimStatus.WAITING,
        status_changed_at=at,
        created_at=at,
        last_active_at=at,
    )
    session.add(claim)
    await session.flush()
    seat_at(session, claim, vm, actor=RULE, at=at, why=f"a rehearsal tries {vm.hostname}")
    return claim.id


async def unseat_robot(session: AsyncSession, db: Database, claim_id: int, *, why: str) -> None:
    """Gives a robot's machine back, to be cleaned; one that has given it back already has nothing to do."""
    claim = await lock_claim(session, claim_id)
    if claim is not None and claim.status in OPEN_CLAIM:
        await vacate(session, claim, ClaimStatus.RELEASED, actor=RULE, at=db.now(), reason=why)


async def give_way(db: Database, rehearsal_id: int, pool_id: int) -> int:
    """While people wait in line, robots give their machines back, one for each who waits. Returns how many did."""
    async with db.transaction() as session:
        missing = await count_waiting(session, pool_id)
        if not missing:
            return 0
        # What is being cleaned is theirs already.
        cleaning = select(func.count()).where(Vm.pool_id == pool_id, Vm.status == VmStatus.CLEANING)
        missing -= await session.scalar(cleaning) or 0
        held = select(RehearsalMachine.id).where(
            RehearsalMachine.rehearsal_id == rehearsal_id, RehearsalMachine.step.in_(HOLDING)
        )
        ids = list(await session.scalars(held.order_by(RehearsalMachine.id.desc()).limit(max(0, missing))))
    for machine_id in ids:
        await _give_way(db, machine_id)
    return len(ids)


async def release_orphans(db: Database) -> int:
    """Ends the claims of robots whose rehearsal is over, however it ended. Returns how many there were."""
    rehearsed = exists().where(
        RehearsalMachine.claim_id == Claim.id,
        RehearsalMachine.step.in_(HOLDING),
        RehearsalMachine.ended_at.is_(None),
        Rehearsal.id == RehearsalMachine.rehearsal_id,
        Rehearsal.status == RehearsalStatus.RUNNING,
    )
    orphans = select(Claim.id).where(Claim.status.in_(OPEN_CLAIM), Claim.email.like(f"%{ROBOTS}"), ~rehearsed)
    async with db.transaction() as session:
        ids = list(await session.scalars(orphans.order_by(Claim.id)))
    for claim_id in ids:
        async with db.transaction() as session:
            await unseat_robot(session, db, claim_id, why="its rehearsal is over")
    return len(ids)


async def _give_way(db: Database, machine_id: int) -> None:
    async with db.transaction() as session:
        machine = await session.get_one(RehearsalMachine, machine_id)
        if machine.claim_id is not None:
            await unseat_robot(session, db, machine.claim_id, why="people wait in line: robots give way")
        await session.refresh(machine, with_for_update=True)
        machine.step, machine.step_at = RehearsalStep.WAITING, db.now()
        machine.claim_id = machine.terminal_id = machine.command_id = machine.connection = None
