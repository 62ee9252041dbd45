"""Rescues: a seat whose machine died goes on at another one, with the same page, link and key.

The machine that it leaves is never wiped by a rule while that seat is open: it may hold the person's work, and may even
still serve them where only its way to us is cut. It is kept, out of the pool, until its person needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import NotFound
from backend.models import Claim, Command, Pool, Vm
from backend.services.actor import Actor
from backend.services.emails import is_robot
from backend.services.healing_limits import HealingLimits
from backend.services.healing_marks import KEPT_FOR
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.moves import move_claim, move_vm, record_event
from backend.services.seating import find_free_vm
from backend.services.sessions import list_held, seat_at, serve_line
from backend.services.terminal_ends import end_terminals_of_claim
from backend.states import OPEN_CLAIM, OPEN_COMMAND, ClaimStatus, CommandStatus, Health, PoolStatus, VmStatus

RULE = Actor.rule("rescue")


async def rescue_seats(db: Database, limits: HealingLimits, *, heard_for_s: float | None = None) -> int:
    """Moves the seats whose machine has been silent beyond its pool's grace. Returns how many.

    ``heard_for_s``: for how long we have been listening ourselves; silence before that is nobody's fault.
    """
    silent = select(Vm.id, Vm.unreachable_since, Pool.healing).join(Pool, Pool.id == Vm.pool_id)
    silent = silent.where(Vm.status == VmStatus.IN_USE, Vm.unreachable_since.is_not(None)).order_by(Vm.id)
    async with db.transaction() as session:
        rows = (await session.execute(silent)).all()
    listening = db.now() - timedelta(seconds=heard_for_s) if heard_for_s is not None else None
    rescued = 0
    for vm_id, since, own in rows:
        grace_s = limits.over(own).seat_grace_s
        began = max(since, listening) if listening else since
        if grace_s and db.now() - began > timedelta(seconds=grace_s):
            rescued += await _rescue(db, vm_id)
    return rescued


async def bring_back_seats(db: Database) -> int:
    """Seats that left a machine and wait in line for another are back at theirs once it answers. Returns how many."""
    answers = (Vm.unreachable_since.is_(None), Vm.health != Health.UNHEALTHY)
    kept = (
        select(Vm.id, Claim.id)
        .join(Claim, Claim.id == Vm.facts[KEPT_FOR].as_integer())
        .where(Vm.status == VmStatus.QUARANTINED, *answers, Claim.status == ClaimStatus.WAITING)
        .order_by(Vm.id)
    )
    async with db.transaction() as session:
        rows = (await session.execute(kept)).all()
    return sum([await _bring_back(db, vm_id, claim_id) for vm_id, claim_id in rows])


async def let_machine_go(db: Database, claim_id: int, holder: Holder) -> None:
    """The holder of a seat needs nothing of the machine that it left: it may be wiped, and be of use again.

    Raises:
        NotFound: this holder holds no such seat, or no machine is kept for it.
    """
    async with db.transaction() as session:
        actor = actor_of(await lock_held(session, claim_id, holder), holder)
    async with db.transaction() as session:
        kept = select(Vm).where(Vm.status == VmStatus.QUARANTINED, Vm.facts[KEPT_FOR].as_integer() == claim_id)
        vms = (await session.scalars(kept.order_by(Vm.id).with_for_update())).all()
        if not vms:
            raise NotFound("No machine is kept for this seat any more.", code="nothing_kept")
        for vm in vms:
            _let_go(session, vm, actor=actor, at=db.now(), why="its former researcher needs nothing of it")


async def release_kept(session: AsyncSession, vms: Sequence[Vm], *, at: datetime) -> None:
    """Lets those of these locked VMs go that were kept for a seat which has ended."""
    kept = {vm: vm.facts[KEPT_FOR] for vm in vms if vm.status == VmStatus.QUARANTINED and KEPT_FOR in vm.facts}
    if not kept:
        return
    is_open = select(Claim.id).where(Claim.id.in_(kept.values()), Claim.status.in_(OPEN_CLAIM))
    still_open = set(await session.scalars(is_open))
    for vm, claim_id in kept.items():
        if claim_id not in still_open:
            _let_go(session, vm, actor=RULE, at=at, why="the seat that it was kept for has ended")


async def _rescue(db: Database, vm_id: int) -> bool:
    async with db.transaction() as session:
        vm = await session.get_one(Vm, vm_id, with_for_update=True)
        # It may have answered, or been given back, meanwhile.
        if vm.status != VmStatus.IN_USE or vm.unreachable_since is None:
            return False
        pool = await session.get_one(Pool, vm.pool_id)
        claims = await list_held(session, [vm.id])
        since = f"{vm.unreachable_since:%H:%M} UTC"
        what = f"{vm.hostname} has not answered since {since}"
        if not claims or not await move_on(session, pool, claims[0], vm, what=what, actor=RULE, at=db.now()):
            return False
        vm.facts = {**vm.facts, KEPT_FOR: claims[0].id}
        why = f"silent since {since} under a seat, which moved on; kept as it is, since it may hold that person's work"
        move_vm(session, vm, VmStatus.QUARANTINED, actor=RULE, at=db.now(), reason=why, claim_id=claims[0].id)
        await session.flush()
        await serve_line(session, pool.id, at=db.now())
        return True


async def _bring_back(db: Database, vm_id: int, claim_id: int) -> bool:
    async with db.transaction() as session:
        vm = await session.get_one(Vm, vm_id, with_for_update=True)
        claim = await session.get_one(Claim, claim_id, with_for_update=True)
        is_kept = vm.status == VmStatus.QUARANTINED and vm.facts.get(KEPT_FOR) == claim_id
        if not is_kept or vm.unreachable_since is not None or claim.status != ClaimStatus.WAITING:
            return False
        pool = await session.get_one(Pool, vm.pool_id)
        vm.facts = {key: value for key, value in vm.facts.items() if key != KEPT_FOR}
        seat_at(session, claim, vm, actor=RULE, at=db.now(), why=f"{vm.hostname} answers again")
        claim.last_active_at, claim.warned_at, claim.warned_again_at = db.now(), None, None
        if pool.claim_duration_s is not None:
            claim.ends_at = db.now() + timedelta(seconds=pool.claim_duration_s)
        return True


async def move_on(
    session: AsyncSession, pool: Pool, claim: Claim, vm: Vm, *, what: str, actor: Actor, at: datetime
) -> bool:
    """Takes a locked seat off its locked machine, which is left as it is: to a free one, or to the front of the line.

    ``what`` happened, for the history. False, and nothing is changed, in a closed pool without a free machine: there is
    no line to wait in, and this one may come back; and for a robot, which rehearses this very machine.
    """
    if is_robot(claim.email):
        return False
    other = await find_free_vm(session, pool.id)
    if other is None and pool.status != PoolStatus.OPEN:
        return False
    await _leave(session, claim, vm, actor, at)
    if other is not None:
        why = f"{what}; moved to {other.hostname}"
        seat_at(session, claim, other, actor=actor, at=at, why=why)
    else:
        why = f"{what}; the next machine that comes free is given to you"
        move_claim(session, claim, ClaimStatus.WAITING, actor=actor, at=at, reason=why)
        claim.vm_id = claim.ends_at = None
    message, kind = f"The seat of {claim.email} was rescued: {why}", "claim.rescued"
    record_event(session, kind, message, actor=actor, at=at, pool_id=pool.id, vm_id=vm.id, claim_id=claim.id)
    return True


async def _leave(session: AsyncSession, claim: Claim, vm: Vm, actor: Actor, at: datetime) -> None:
    await end_terminals_of_claim(session, claim, actor=actor, at=at)
    own = (Command.claim_id == claim.id, Command.vm_id == vm.id, Command.status.in_(OPEN_COMMAND))
    for command in await session.scalars(select(Command).where(*own).with_for_update()):
        command.status, command.finished_at, command.detail = CommandStatus.EXPIRED, at, "the seat moved on"
    claim.crd_status = claim.crd_detail = claim.crd_link = claim.crd_pin = None
    vm.email = vm.crd_command = None


def _let_go(session: AsyncSession, vm: Vm, *, actor: Actor, at: datetime, why: str) -> None:
    vm.facts = {key: value for key, value in vm.facts.items() if key != KEPT_FOR}
    move_vm(session, vm, VmStatus.FAILED, actor=actor, at=at, reason=why)
