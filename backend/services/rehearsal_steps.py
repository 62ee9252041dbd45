"""The rehearsal of one machine, step by step: claimed, connected, checked, given back, clean.

What a robot waits for stands in the database, so that whoever leads goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict
from backend.models import Claim, Command, Pool, RehearsalMachine, Terminal, Vm
from backend.services.command_queue import queue_command
from backend.services.emails import is_robot
from backend.services.rehearsal_robots import HOLDING, RULE, is_fit, seat_robot, unseat_robot
from backend.services.sessions import lock_claim
from backend.services.terminals import OPEN_DEADLINE_S, request_terminal
from backend.states import OPEN_CLAIM, OPEN_COMMAND, ClaimStatus, CommandKind, CommandStatus, RehearsalStep, VmStatus

# After this a terminal whose agent has not dialled in does not come any more; for a look, a moment is enough.
TERMINAL_S, LOOK_S, SPARE_S = OPEN_DEADLINE_S + 15, 60, 30
TERMINAL, CRD = "terminal", "Chrome Remote Desktop"
_REPAIR = "Look at the machine's log, then repair or replace it, and rehearse again."
_SCRIPT = "Repeat the command in a terminal of the machine; mend the image or the startup script, then rehearse again."
# A machine that waits for its robot, and will be there.
UP_SOON = frozenset({VmStatus.AVAILABLE, VmStatus.CLEANING, VmStatus.BOOTING, VmStatus.PROVISIONING})


async def take_step(db: Database, machine: RehearsalMachine, *, may_claim: bool, check_deadline_s: int) -> bool:
    """Takes the next step of this machine, if what it waits for is there. Returns whether it took one.

    ``machine`` is as it was read; it is locked, after its VM and claim, and looked at again.
    """
    if machine.step == RehearsalStep.WAITING:
        return await _in_turn(db, machine, lambda session, vm, row: _begin(session, db, vm, row, may_claim=may_claim))
    if machine.step == RehearsalStep.CLAIMED:
        if await _wants_terminal(db, machine):
            return await _open_terminal(db, machine)
        return await _in_turn(db, machine, lambda session, vm, row: _connect(session, db, vm, row))
    if machine.step == RehearsalStep.CONNECTED:
        return await _in_turn(db, machine, lambda session, vm, row: _check(session, db, vm, row, check_deadline_s))
    if machine.step == RehearsalStep.CHECKED:
        return await _in_turn(db, machine, lambda session, _vm, row: _give_back(session, db, row))
    return await _in_turn(db, machine, lambda session, vm, row: _until_clean(session, db, vm, row))


async def skip_machine(db: Database, machine: RehearsalMachine, *, why: str) -> None:
    """The rehearsal is over for this machine; its robot gives it back."""

    async def skip(session: AsyncSession, vm: Vm, row: RehearsalMachine) -> bool:
        if row.claim_id is not None and row.step in HOLDING:
            await unseat_robot(session, db, row.claim_id, why=why)
        if row.problem:
            return _end(row, db, row.problem, row.remedy or "")
        return _end(row, db, why, "Rehearse again.", step=RehearsalStep.SKIPPED)

    await _in_turn(db, machine, skip)


_Step = Callable[[AsyncSession, Vm, RehearsalMachine], Awaitable[bool]]


async def _in_turn(db: Database, seen: RehearsalMachine, step: _Step) -> bool:
    """Runs a step with VM, claim and row locked, in this order; one that another process has done is not done again."""
    async with db.transaction() as session:
        vm = await session.get_one(Vm, seen.vm_id, with_for_update=True)
        if seen.claim_id is not None:
            await lock_claim(session, seen.claim_id)
        row = await session.get_one(RehearsalMachine, seen.id, with_for_update=True)
        if (row.step, row.claim_id, row.ended_at) != (seen.step, seen.claim_id, None):
            return False
        return await step(session, vm, row)


async def _begin(session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine, *, may_claim: bool) -> bool:
    if vm.status == VmStatus.IN_USE:
        if is_robot(vm.email or ""):
            # A former rehearsal's, which is just leaving.
            return False
        return _end(row, db, "somebody uses it, so that it works for them", "", step=RehearsalStep.SKIPPED)
    if vm.status in {VmStatus.DESTROYING, VmStatus.DESTROYED}:
        return _end(row, db, "it was taken away meanwhile", "", step=RehearsalStep.SKIPPED)
    if vm.status not in UP_SOON:
        return _end(row, db, f"it is {vm.status}: {vm.reason or 'no reason was given'}", _REPAIR)
    if vm.status != VmStatus.AVAILABLE:
        return False
    if not is_fit(vm):
        why = "it does not answer" if vm.unreachable_since else "; ".join(vm.health_reasons) or "it is unhealthy"
        return _end(row, db, f"nobody would be given it: {why}", _REPAIR)
    claim_id = await seat_robot(session, db, vm) if may_claim else None
    if claim_id is None:
        return False
    row.claim_id = claim_id
    return _move(row, db, RehearsalStep.CLAIMED)


async def _connect(session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine) -> bool:
    claim = await session.get(Claim, row.claim_id or 0)
    if lost := _why_lost(claim, vm):
        return await _lose(session, db, row, lost, claim)
    if claim is None or claim.status != ClaimStatus.ACTIVE:
        return False
    pool = await session.get_one(Pool, vm.pool_id)
    opened = row.connection.split(" and ") if row.connection else []
    if pool.terminal and TERMINAL not in opened:
        return await _look_at_terminal(session, db, row)
    if pool.crd and CRD not in opened:
        return await _look_at_crd(session, db, vm, row)
    if not opened:
        row.connection = "none: its link was not tried" if pool.url_template else "none: the pool offers none"
    return _move(row, db, RehearsalStep.CONNECTED)


async def _wants_terminal(db: Database, row: RehearsalMachine) -> bool:
    if row.terminal_id is not None or row.claim_id is None:
        return False
    query = select(Pool.terminal, Claim.status).join(Pool, Pool.id == Claim.pool_id).where(Claim.id == row.claim_id)
    async with db.transaction() as session:
        found = (await session.execute(query)).first()
    return found is not None and found.terminal and found.status == ClaimStatus.ACTIVE


async def _open_terminal(db: Database, seen: RehearsalMachine) -> bool:
    """As the seat's page does. Two leaders at once would open two: both end with the seat."""
    try:
        terminal = await request_terminal(db, seen.claim_id or 0, actor=RULE)
    except Conflict:
        return False

    async def note(session: AsyncSession, vm: Vm, row: RehearsalMachine) -> bool:
        row.terminal_id = terminal.id
        return True

    return await _in_turn(db, seen, note)


async def _look_at_terminal(session: AsyncSession, db: Database, row: RehearsalMachine) -> bool:
    terminal = await session.get(Terminal, row.terminal_id or 0)
    if terminal is None:
        return False
    if terminal.connected_at is not None:
        row.connection = TERMINAL
        return True
    is_late = db.now() - terminal.opened_at > timedelta(seconds=TERMINAL_S)
    if terminal.ended_at is None and not is_late:
        return False
    why = terminal.reason if terminal.ended_at else "its agent did not dial in with it"
    return await _fail(session, db, row, f"the terminal could not be opened: {why}", _REPAIR)


async def _look_at_crd(session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine) -> bool:
    command = await _ask(session, db, vm, row, {"what": "crd"}, LOOK_S)
    if command is None:
        return False
    if command.status != CommandStatus.SUCCEEDED:
        return await _fail(session, db, row, command.detail or "Chrome Remote Desktop is not ready", _REPAIR)
    row.connection = f"{row.connection} and {CRD}" if row.connection else CRD
    row.command_id = None
    return True


async def _check(session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine, deadline_s: int) -> bool:
    claim = await session.get(Claim, row.claim_id or 0)
    if lost := _why_lost(claim, vm):
        return await _lose(session, db, row, lost, claim)
    pool = await session.get_one(Pool, vm.pool_id)
    if pool.check_command is None:
        return _move(row, db, RehearsalStep.CHECKED)
    asked = {"command": pool.check_command, "deadline_s": deadline_s}
    command = await _ask(session, db, vm, row, asked, deadline_s + SPARE_S)
    if command is None:
        return False
    row.said = "\n".join(command.data.get("lines") or ()) or None
    if command.status != CommandStatus.SUCCEEDED:
        why = f"the check command could not be run: {command.detail or 'no reason was given'}"
        return await _fail(session, db, row, why, _REPAIR)
    status = command.data.get("exit_status")
    if status is None:
        return await _fail(session, db, row, f"the check command did not end within {deadline_s} s", _SCRIPT)
    if status != 0:
        return await _fail(session, db, row, f"the check command ended with exit status {status}", _SCRIPT)
    return _move(row, db, RehearsalStep.CHECKED)


async def _give_back(session: AsyncSession, db: Database, row: RehearsalMachine) -> bool:
    if row.claim_id is not None:
        await unseat_robot(session, db, row.claim_id, why="it was rehearsed")
    return _move(row, db, RehearsalStep.GIVEN_BACK)


async def _until_clean(session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine) -> bool:
    asked = (Command.vm_id == vm.id, Command.claim_id == row.claim_id, Command.kind == CommandKind.END_SESSION)
    command = await session.scalar(select(Command).where(*asked).order_by(Command.id.desc()).limit(1))
    if command is not None and command.status == CommandStatus.SUCCEEDED:
        row.ended_at = db.now()
        return _move(row, db, RehearsalStep.CLEAN)
    if command is not None and command.status in OPEN_COMMAND:
        return False
    why = vm.reason or (command.detail if command else None) or "it was not cleaned"
    problem = f"{row.problem}; then {why}" if row.problem else f"it was not clean afterwards: {why}"
    return _end(row, db, problem, row.remedy or _REPAIR)


async def _ask(
    session: AsyncSession, db: Database, vm: Vm, row: RehearsalMachine, asked: Mapping[str, object], deadline_s: int
) -> Command | None:
    """Has the agent check the session, once. Returns the command when there is a result."""
    if row.command_id is not None:
        command = await session.get(Command, row.command_id)
        is_open = command is not None and command.status in OPEN_COMMAND
        return None if is_open else command
    payload = {"claim_id": row.claim_id, **asked}
    kind = CommandKind.CHECK_SESSION
    command = queue_command(
        session, vm.id, kind, at=db.now(), deadline_s=deadline_s, claim_id=row.claim_id, payload=payload
    )
    await session.flush()
    row.command_id = command.id
    return None


def _why_lost(claim: Claim | None, vm: Vm) -> str | None:
    """Why the robot cannot go on, if its claim or its machine is not what it was."""
    if claim is None or claim.status not in OPEN_CLAIM or claim.vm_id != vm.id:
        return (claim.reason if claim else None) or "its seat has ended"
    return "it stopped answering" if vm.unreachable_since is not None else None


async def _lose(session: AsyncSession, db: Database, row: RehearsalMachine, why: str, claim: Claim | None) -> bool:
    if claim is not None and claim.status in {ClaimStatus.RELEASED, ClaimStatus.EXPIRED}:
        return _end(row, db, f"its robot was sent away: {why}", "Rehearse again.", step=RehearsalStep.SKIPPED)
    if claim is not None and claim.status in OPEN_CLAIM:
        return await _fail(session, db, row, why, _REPAIR)
    return _end(row, db, why, _REPAIR)


async def _fail(session: AsyncSession, db: Database, row: RehearsalMachine, problem: str, remedy: str) -> bool:
    """Something is wrong: the robot gives the machine back, to be cleaned as after any seat."""
    row.problem, row.remedy = problem, remedy
    return await _give_back(session, db, row)


def _end(row: RehearsalMachine, db: Database, problem: str, remedy: str, *, step: RehearsalStep | None = None) -> bool:
    row.problem, row.remedy, row.ended_at = problem, remedy, db.now()
    return _move(row, db, step or RehearsalStep(row.step))


def _move(row: RehearsalMachine, db: Database, step: RehearsalStep) -> bool:
    row.step, row.step_at = step, db.now()
    row.command_id = None
    return True
