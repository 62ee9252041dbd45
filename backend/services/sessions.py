"""A session on a machine: from the claim that gets a VM, through the agent's answer, to a VM free for the next person.

These are steps within somebody else's transaction: claims, commands, heartbeats and sweeps share them. Rows are locked
in one order everywhere, VM before claim before command, so that no two transactions wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from backend.models import Claim, Command, Pool, Terminal, Vm
from backend.services.actor import Actor
from backend.services.check_results import tidy_check
from backend.services.command_queue import queue_command
from backend.services.crd_results import conclude_crd
from backend.services.emails import is_robot
from backend.services.enrolments import revoke_agents
from backend.services.moves import move_claim, move_vm, record_event
from backend.services.seating import PREPARE_DEADLINE_S, seat_next
from backend.services.terminal_ends import end_terminals, end_terminals_of_claim
from backend.states import HOLDING_CLAIM, OPEN_COMMAND, ClaimStatus, CommandKind, CommandStatus, VmStatus

# Made once: each is a circle, and every heartbeat asks.
_Prepared, _Ended = aliased(Command), aliased(Command)

# facts[…] of a VM that leaves its pool's offer when its seat has ended: who said so.
DRAINED_BY = "drained_by"
# facts["failed_by"] of a VM of which nobody knows that it is clean. A boot does not help it; only another in its place.
UNCLEAN = "cleaning"
MAX_VERIFIED = 500
# First key of the two-key advisory lock that serialises the line of one pool.
LINE_LOCK = 7_426_002


async def serve_line(session: AsyncSession, pool_id: int, *, at: datetime) -> int:
    """Gives free VMs to those who wait, in order of arrival. Returns how many were let in.

    The line of a pool is served by one transaction at a time, so that nobody is let in past somebody else.
    """
    await session.execute(text("SELECT pg_advisory_xact_lock(:space, :pool)"), {"space": LINE_LOCK, "pool": pool_id})
    served = 0
    while await seat_next(session, pool_id, at=at):
        served += 1
    return served


async def lock_claim(session: AsyncSession, claim_id: int) -> Claim | None:
    """The claim, locked after its VM."""
    claim = await session.get(Claim, claim_id)
    while claim is not None:
        vm_id = claim.vm_id
        if vm_id is not None:
            await session.get(Vm, vm_id, with_for_update=True)
        await session.refresh(claim, with_for_update=True)
        if claim.vm_id == vm_id:
            break
    return claim


async def list_held(session: AsyncSession, vm_ids: Collection[int]) -> Sequence[Claim]:
    """The claims that hold these VMs, locked; the VMs are locked already."""
    held = select(Claim).where(Claim.vm_id.in_(vm_ids), Claim.status.in_(HOLDING_CLAIM)).order_by(Claim.id)
    return (await session.scalars(held.with_for_update())).all()


async def vacate(
    session: AsyncSession, claim: Claim, to: ClaimStatus, *, actor: Actor, at: datetime, reason: str | None = None
) -> None:
    """Ends an open claim and has its machine cleaned; the machine is offered again only after the agent says so."""
    move_claim(session, claim, to, actor=actor, at=at, reason=reason)
    if claim.vm_id is None:
        return
    await clear_machine(session, claim, claim.vm_id, actor=actor, at=at, why="the seat was given back")


async def move_seat(session: AsyncSession, claim: Claim, vm: Vm, *, actor: Actor, at: datetime) -> None:
    """Gives a locked free VM to a locked claim in place of the one it holds, which is cleaned."""
    assert claim.vm_id is not None
    await clear_machine(session, claim, claim.vm_id, actor=actor, at=at, why="the seat moved to another machine")
    seat_at(session, claim, vm, actor=actor, at=at, why=f"moved to {vm.hostname}")


def seat_at(session: AsyncSession, claim: Claim, vm: Vm, *, actor: Actor, at: datetime, why: str) -> None:
    """Puts a locked claim that holds a machine at a locked free one instead; what becomes of the former is not said."""
    claim.vm_id = vm.id
    claim.crd_status = claim.crd_detail = claim.crd_link = claim.crd_pin = None
    vm.email = claim.email
    move_vm(session, vm, VmStatus.IN_USE, actor=actor, at=at, claim_id=claim.id)
    if claim.status != ClaimStatus.PREPARING:
        move_claim(session, claim, ClaimStatus.PREPARING, actor=actor, at=at, reason=why)
    payload = {"claim_id": claim.id}
    kind, deadline_s = CommandKind.PREPARE_SESSION, PREPARE_DEADLINE_S
    queue_command(session, vm.id, kind, at=at, deadline_s=deadline_s, claim_id=claim.id, payload=payload)


async def clear_machine(
    session: AsyncSession, claim: Claim, vm_id: int, *, actor: Actor, at: datetime, why: str
) -> None:
    """Has the session of a claim removed from a VM; what else its agent had to do for that claim is over."""
    await end_terminals_of_claim(session, claim, actor=actor, at=at)
    vm = await session.get_one(Vm, vm_id, with_for_update=True)
    vm.email = vm.crd_command = None
    if vm.status != VmStatus.IN_USE:
        return
    move_vm(session, vm, VmStatus.CLEANING, actor=actor, at=at, claim_id=claim.id)
    # Of this VM alone: after a move, another one may still be removing its part of the same claim.
    own = (Command.claim_id == claim.id, Command.vm_id == vm.id, Command.status.in_(OPEN_COMMAND))
    for command in await session.scalars(select(Command).where(*own).with_for_update()):
        command.status, command.finished_at, command.detail = CommandStatus.EXPIRED, at, why
    await _ask_for_cleaning(session, vm, claim.id, at)


async def conclude(session: AsyncSession, at: datetime, vm: Vm, command: Command, *, actor: Actor) -> None:
    """What follows from a finished or expired command; VM and command are locked."""
    claim = await session.get(Claim, command.claim_id, with_for_update=True) if command.claim_id else None
    if command.kind == CommandKind.PREPARE_SESSION and claim is not None:
        await _conclude_prepare(session, at, vm, command, claim, actor)
    elif command.kind == CommandKind.END_SESSION:
        await _conclude_end(session, at, vm, command, actor)
    elif command.kind == CommandKind.STOP and vm.status == VmStatus.DESTROYING:
        # Answered or not, the joined machine is let go: its token dies here.
        move_vm(session, vm, VmStatus.DESTROYED, actor=actor, at=at)
        await revoke_agents(session, [vm.id], at=at)
    elif command.kind == CommandKind.OPEN_TERMINAL:
        await _conclude_open_terminal(session, at, command, actor)
    elif command.kind == CommandKind.START_CRD and claim is not None:
        conclude_crd(session, at, vm, command, claim, actor)
    elif command.kind == CommandKind.CHECK_SESSION:
        # Whoever asked reads it; only what was asked for is kept of an agent's words.
        command.data = tidy_check(command.data)
    elif command.kind == CommandKind.RESTART and vm.status == VmStatus.BOOTING:
        _conclude_restart(session, at, vm, command, actor)
    else:
        record_event(
            session,
            f"command.{command.status}",
            f"{vm.hostname}: {command.kind} {command.status}" + (f": {command.detail}" if command.detail else ""),
            actor=actor,
            at=at,
            pool_id=vm.pool_id,
            vm_id=vm.id,
        )


async def list_unclean(session: AsyncSession, vm_ids: Collection[int]) -> frozenset[int]:
    """Those of these VMs on which a session may still be: its removal was never asked for, or not yet confirmed."""
    if not vm_ids:
        return frozenset()
    last_prepared = (
        select(func.max(_Prepared.id))
        .where(
            _Prepared.vm_id.in_(vm_ids),
            _Prepared.kind == CommandKind.PREPARE_SESSION,
            _Prepared.delivered_at.is_not(None),
        )
        .group_by(_Prepared.vm_id)
    )
    removed = select(_Ended.id).where(
        _Ended.vm_id == Command.vm_id,
        _Ended.claim_id == Command.claim_id,
        # A seat may come back to a VM that it had left: what was removed then says nothing of now.
        _Ended.id > Command.id,
        _Ended.kind == CommandKind.END_SESSION,
        _Ended.status == CommandStatus.SUCCEEDED,
    )
    is_unremoved = Command.id.in_(last_prepared) & ~exists(removed)
    is_being_removed = (Command.kind == CommandKind.END_SESSION) & Command.status.in_(OPEN_COMMAND)
    query = select(Command.vm_id).where(Command.vm_id.in_(vm_ids), is_unremoved | is_being_removed).distinct()
    return frozenset(await session.scalars(query))


async def renew_end_session(session: AsyncSession, vm: Vm, *, at: datetime) -> None:
    """Asks again for the removal of a session that was never confirmed removed, before this VM is offered again."""
    last_prepared = select(func.max(Command.id)).where(
        Command.vm_id == vm.id, Command.kind == CommandKind.PREPARE_SESSION, Command.delivered_at.is_not(None)
    )
    prepared = await session.get(Command, await session.scalar(last_prepared) or 0)
    if prepared is None:
        return
    ended = select(Command.id).where(
        Command.vm_id == vm.id,
        Command.claim_id == prepared.claim_id,
        Command.id > prepared.id,
        Command.kind == CommandKind.END_SESSION,
        Command.status.in_({CommandStatus.SUCCEEDED, *OPEN_COMMAND}),
    )
    if not await session.scalar(select(exists(ended))):
        await _ask_for_cleaning(session, vm, prepared.claim_id, at)


async def _conclude_prepare(
    session: AsyncSession, at: datetime, vm: Vm, command: Command, claim: Claim, actor: Actor
) -> None:
    if claim.status != ClaimStatus.PREPARING or claim.vm_id != vm.id:
        return
    if command.status == CommandStatus.SUCCEEDED:
        move_claim(session, claim, ClaimStatus.ACTIVE, actor=actor, at=at)
        return
    # The person keeps the place in line; the machine leaves the pool with its reason.
    why = f"could not prepare a session: {command.detail or 'no reason given'}"
    vm.email = None
    move_vm(session, vm, VmStatus.FAILED, actor=actor, at=at, reason=why, claim_id=claim.id)
    if is_robot(claim.email):
        # It rehearses this very machine, and stands in nobody's line.
        move_claim(session, claim, ClaimStatus.FAILED, actor=actor, at=at, reason=f"{vm.hostname} {why}")
    else:
        move_claim(session, claim, ClaimStatus.WAITING, actor=actor, at=at, reason=f"{vm.hostname} {why}")
        claim.vm_id = claim.ends_at = None
    await session.flush()
    await serve_line(session, vm.pool_id, at=at)


async def _conclude_end(session: AsyncSession, at: datetime, vm: Vm, command: Command, actor: Actor) -> None:
    is_cleaning = vm.status == VmStatus.CLEANING
    if command.status == CommandStatus.SUCCEEDED and is_cleaning:
        _record_cleaned(session, at, vm, command, actor)
    # One that boots may not have got so far; its agent's own word that it cannot counts there too.
    elif is_cleaning or (vm.status == VmStatus.BOOTING and command.status == CommandStatus.FAILED):
        step = f" (the last heard of it: {vm.reason})" if is_cleaning and vm.reason else ""
        why = f"the former session could not be removed: {command.detail or 'no reason given'}{step}"
        vm.facts = {**vm.facts, "failed_by": UNCLEAN}
        move_vm(session, vm, VmStatus.FAILED, actor=actor, at=at, reason=why, claim_id=command.claim_id)
        return
    if not is_cleaning:
        return
    drained_by = vm.facts.get(DRAINED_BY)
    if drained_by:
        vm.facts = {key: value for key, value in vm.facts.items() if key != DRAINED_BY}
        move_vm(session, vm, VmStatus.QUARANTINED, actor=actor, at=at, reason=f"drained by {drained_by}")
        return
    move_vm(session, vm, VmStatus.AVAILABLE, actor=actor, at=at, claim_id=command.claim_id)
    await session.flush()
    await serve_line(session, vm.pool_id, at=at)


def _record_cleaned(session: AsyncSession, at: datetime, vm: Vm, command: Command, actor: Actor) -> None:
    told = command.data.get("verified")
    verified = told[:MAX_VERIFIED] if isinstance(told, str) and told else "what an older agent looks for"
    took_s = round((at - vm.status_changed_at).total_seconds(), 1)
    record_event(
        session,
        "vm.cleaned",
        f"{vm.hostname} was cleaned in {took_s} s. Verified: {verified}",
        actor=actor,
        at=at,
        pool_id=vm.pool_id,
        vm_id=vm.id,
        claim_id=command.claim_id,
        data={"duration_s": took_s, "verified": verified.split(", ")},
    )


async def _conclude_open_terminal(session: AsyncSession, at: datetime, command: Command, actor: Actor) -> None:
    if command.status != CommandStatus.SUCCEEDED:
        why = f"it could not be opened: {command.detail or 'no reason given'}"
        which = Terminal.id == command.payload["terminal_id"]
        await end_terminals(session, which, actor=actor, at=at, reason=why)


async def _ask_for_cleaning(session: AsyncSession, vm: Vm, claim_id: int | None, at: datetime) -> None:
    """In the transaction that moves the VM: the deadline counts from there, whatever happens to agent and server."""
    deadline_s = (await session.get_one(Pool, vm.pool_id)).cleaning_deadline_s
    payload = {"claim_id": claim_id, "deadline_s": deadline_s}
    kind = CommandKind.END_SESSION
    queue_command(session, vm.id, kind, at=at, deadline_s=deadline_s, claim_id=claim_id, payload=payload)


def _conclude_restart(session: AsyncSession, at: datetime, vm: Vm, command: Command, actor: Actor) -> None:
    """From now on what its agent says of itself counts again."""
    vm.facts = {key: value for key, value in vm.facts.items() if key != "awaiting_boot"}
    if command.status != CommandStatus.SUCCEEDED:
        why = f"its workload could not be restarted: {command.detail or 'no reason given'}"
        move_vm(session, vm, VmStatus.FAILED, actor=actor, at=at, reason=why)
