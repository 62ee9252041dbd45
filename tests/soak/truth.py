"""What must be true of a server at rest, whatever happened to it before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Claim, Command, Event, Operation, Vm
from backend.states import (
    GONE_VM,
    HOLDING_CLAIM,
    OPEN_CLAIM,
    OPEN_COMMAND,
    OPEN_OPERATION,
    ClaimStatus,
    OperationStatus,
    VmStatus,
)

UP = {VmStatus.AVAILABLE, VmStatus.IN_USE}
_BY_AN_ORGANISER = {"an organiser removed the machine", "taken back by an organiser"}
_OUR_OWN_FAULT = "an error of LabLink's own"


async def list_violations(
    db: Database, *, running: Collection[str], promised: Mapping[str, str], in_line: Collection[str]
) -> list[str]:
    """Everything that is not as it must be, each as a sentence.

    ``running``: the VMs whose process lives. ``promised``: the hostname that each person was told. ``in_line``: who
    was told a place in line.
    """
    async with db.transaction() as session:
        vms = (await session.scalars(select(Vm).order_by(Vm.id))).all()
        claims = (await session.scalars(select(Claim).order_by(Claim.id))).all()
        operations = (await session.scalars(select(Operation).order_by(Operation.id))).all()
        return [
            *_look_at_vms([vm for vm in vms if vm.status not in GONE_VM], running),
            *_look_at_seats(vms, claims, promised, in_line),
            *_look_at_operations(operations),
            *[violation async for violation in _look_at_work(session)],
            *await _replay(session, "vm", Event.vm_id, {vm.id: vm.status for vm in vms}, VmStatus),
            *await _replay(session, "claim", Event.claim_id, {each.id: each.status for each in claims}, ClaimStatus),
            *await _replay(
                session, "operation", Event.operation_id, {each.id: each.status for each in operations}, OperationStatus
            ),
        ]


def _look_at_vms(vms: Collection[Vm], running: Collection[str]) -> Iterator[str]:
    for vm in vms:
        if vm.status not in {*UP, VmStatus.FAILED}:
            yield f"{vm.hostname} is neither up nor failed, but {vm.status}"
        if vm.status == VmStatus.FAILED and not vm.reason:
            yield f"{vm.hostname} has failed and nothing says why"
        if _OUR_OWN_FAULT in (vm.reason or ""):
            yield f"{vm.hostname} has failed by a defect: {vm.reason}"
    up = {vm.hostname for vm in vms if vm.status in UP}
    for hostname in sorted(up - set(running)):
        yield f"{hostname} counts as up and has no process"
    for hostname in sorted(set(running) - up):
        yield f"{hostname} has a process that no row asks for"


def _look_at_seats(
    vms: Collection[Vm], claims: Collection[Claim], promised: Mapping[str, str], in_line: Collection[str]
) -> Iterator[str]:
    by_id = {vm.id: vm for vm in vms}
    held = [claim for claim in claims if claim.status in HOLDING_CLAIM]
    for claim in held:
        vm = by_id[claim.vm_id or 0]
        if vm.status != VmStatus.IN_USE or vm.email != claim.email:
            yield f"the claim of {claim.email} holds {vm.hostname}, which is {vm.status} for {vm.email}"
    for vm in vms:
        if vm.status == VmStatus.IN_USE and vm.id not in {claim.vm_id for claim in held}:
            yield f"{vm.hostname} is in use by nobody"
    for vm_id, count in Counter(claim.vm_id for claim in held).items():
        if count > 1:
            yield f"{by_id[vm_id or 0].hostname} has {count} open claims"
    people = Counter((claim.pool_id, claim.email.lower()) for claim in claims if claim.status in OPEN_CLAIM)
    for (_, email), count in people.items():
        if count > 1:
            yield f"{email} has {count} open claims"
    seats = {claim.email: by_id[claim.vm_id or 0].hostname for claim in held}
    for email, hostname in promised.items():
        if seats.get(email) != hostname:
            yield f"{email} was promised {hostname} and sits at {seats.get(email)}"
    ended = {claim.email for claim in claims if claim.reason in _BY_AN_ORGANISER}
    for email in sorted(set(in_line) - {email for _, email in people} - ended):
        yield f"{email} was promised a place in line and has neither place nor seat"


def _look_at_operations(operations: Collection[Operation]) -> Iterator[str]:
    for operation in operations:
        if operation.status in OPEN_OPERATION:
            yield f"operation {operation.id} has not ended: {operation.status}"
        if operation.status == OperationStatus.FAILED and not operation.reason:
            yield f"operation {operation.id} has failed and nothing says why"
        if _OUR_OWN_FAULT in (operation.reason or ""):
            yield f"operation {operation.id} has failed by a defect: {operation.reason}"


async def _look_at_work(session: AsyncSession) -> Iterator[str]:
    open_commands = select(func.count()).where(Command.status.in_(OPEN_COMMAND))
    if count := await session.scalar(open_commands):
        yield f"{count} commands have not ended"
    if count := await session.scalar(text("SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')")):
        yield f"{count} jobs have not ended"


async def _replay(session: AsyncSession, noun: str, column, statuses: Mapping[int, str], words) -> list[str]:
    """The history, told from its beginning, must lead to the state, each move from where the last one led."""
    query = select(column, Event.kind, Event.data).where(Event.kind.in_([f"{noun}.{word}" for word in words]))
    reached: dict[int, str] = {}
    violations = []
    for number, kind, data in await session.execute(query.order_by(Event.id)):
        was, before = data.get("was"), reached.get(number)
        if before is not None and was is not None and was != before:
            violations.append(f"{noun} {number} moved from {was} to {kind}, but had been {before}")
        reached[number] = kind.partition(".")[2]
    for number, status in statuses.items():
        told = reached.get(number, status)
        if told != status:
            violations.append(f"{noun} {number} is {status}, but its last event says {told}")
    return violations
