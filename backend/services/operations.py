"""Operations: ask for a Terraform run, follow it, stop it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.db.jobs import RUN_OPERATION, defer
from backend.errors import Conflict, InvalidInput, NotFound
from backend.models import Operation, OperationVm, Pool, Vm
from backend.services.actor import Actor
from backend.services.fuses import check_fuse
from backend.services.moves import move_operation, move_vm, record_event
from backend.services.pools import MAX_VMS, check_open, get_pool_row
from backend.services.prices import PriceView, find_price
from backend.services.views import OperationView, ProgressView
from backend.states import (
    GONE_VM,
    OPEN_OPERATION,
    OperationKind,
    OperationStatus,
    Origin,
    ProgressState,
    VmStatus,
)


async def request_launch(db: Database, pool_name: str, count: int, *, actor: Actor) -> OperationView:
    """Inserts ``count`` VMs and the operation that makes them, and defers its job, in one transaction.

    Raises:
        NotFound, Conflict: no such pool, it is closed, its ``max`` would be passed, or its budget is spent.
        InvalidInput: count is not from 1 to 1,000, or above the pool's ``max``.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        check_open(pool)
        if pool.is_rehearsal:
            raise Conflict(f"The pool '{pool.name}' takes simulated machines alone.", code="rehearsal_pool")
        await _check_room(session, pool, count)
        operation = await launch(session, db, pool, count, actor=actor)
    return await get_operation(db, operation.id)


async def launch(session: AsyncSession, db: Database, pool: Pool, count: int, *, actor: Actor) -> Operation:
    """The launch itself, as a step of a transaction that holds the pool locked and knows that there is room.

    Raises:
        Conflict: the pool's budget is spent.
    """
    await check_fuse(session, pool)
    at, price = db.now(), await find_price(session, pool)
    vms = [_new_vm(pool, number, at, price) for number in range(pool.next_number, pool.next_number + count)]
    pool.next_number += count
    session.add_all(vms)
    operation = await insert_operation(session, db, pool, OperationKind.LAUNCH, vms, actor)
    for vm in vms:
        record_event(
            session,
            "vm.provisioning",
            f"{vm.hostname} is provisioning",
            actor=actor,
            at=at,
            pool_id=pool.id,
            vm_id=vm.id,
            operation_id=operation.id,
        )
    return operation


async def request_rebuild(db: Database, pool_name: str, *, actor: Actor) -> OperationView:
    """Makes the pool's Terraform state say what exists: lost machines are taken in, gone ones left out. Touches no VM.

    Raises:
        NotFound: no such pool.
        Conflict: an operation of the pool is open.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        is_open = Operation.status.in_(OPEN_OPERATION)
        open_id = await session.scalar(select(Operation.id).where(Operation.pool_id == pool.id, is_open).limit(1))
        if open_id is not None:
            raise Conflict(f"Operation {open_id} in pool '{pool.name}' has to end first.", code="operation_open")
        operation = await insert_operation(session, db, pool, OperationKind.REBUILD, [], actor)
    return await get_operation(db, operation.id)


async def request_cancel(db: Database, operation_id: int, *, actor: Actor) -> OperationView:
    """Stops an operation: at once if it is still queued, else Terraform is asked to stop. What was made is kept.

    Raises:
        NotFound: no such operation.
        Conflict: it has ended.
    """
    actor.must_operate()
    async with db.transaction() as session:
        operation = await session.get(Operation, operation_id, with_for_update=True)
        if operation is None:
            raise NotFound(f"There is no operation {operation_id}.", code="unknown_operation")
        if operation.status not in OPEN_OPERATION:
            raise Conflict(f"Operation {operation_id} has ended already ({operation.status}).", code="operation_ended")
        if operation.cancel_requested_at is None:
            operation.cancel_requested_at = db.now()
            record_event(
                session,
                "operation.cancel_requested",
                f"Cancel of operation {operation_id} was asked for",
                actor=actor,
                at=db.now(),
                pool_id=operation.pool_id,
                operation_id=operation_id,
            )
        if operation.status == OperationStatus.QUEUED:
            why = "cancelled before it began"
            move_operation(session, operation, OperationStatus.CANCELLED, actor=actor, at=db.now(), reason=why)
            await give_up_unmade(session, db, operation_id, reason=f"the operation was {why}")
    return await get_operation(db, operation_id)


async def get_operation(db: Database, operation_id: int) -> OperationView:
    """One operation.

    Raises:
        NotFound: no such operation.
    """
    found = await list_operations(db, ids=[operation_id])
    if not found:
        raise NotFound(f"There is no operation {operation_id}.", code="unknown_operation")
    return found[0]


async def list_operations(
    db: Database, *, ids: Collection[int] | None = None, only_open: bool = False, limit: int = 200
) -> list[OperationView]:
    """Operations with their progress, newest first."""
    query = (
        select(Operation, Pool.name)
        .select_from(Operation)
        .join(Pool, Pool.id == Operation.pool_id)
        .order_by(Operation.id.desc())
        .limit(limit)
    )
    if ids is not None:
        query = query.where(Operation.id.in_(ids))
    if only_open:
        query = query.where(Operation.status.in_(OPEN_OPERATION))
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
        progress = await _list_progress(session, [operation.id for operation, _ in rows])
        return [_view_of(operation, pool, progress[operation.id]) for operation, pool in rows]


async def give_up_unmade(
    session: AsyncSession, db: Database, operation_id: int, *, reason: str, removed: Collection[str] = ()
) -> None:
    """Fails the VMs of an operation that it did not finish, each with the reason; what was made stays as it is.

    ``removed``: those whose machine was taken away again, though a heartbeat of it may still have come in.
    """
    unmade = (
        select(Vm, OperationVm)
        .join(OperationVm, OperationVm.vm_id == Vm.id)
        .where(
            OperationVm.operation_id == operation_id,
            # What Terraform called done it may not have written down before it was killed: then it was removed.
            (OperationVm.state != ProgressState.DONE) | Vm.hostname.in_(removed),
            # A booting VM without a heartbeat is one whose agent was just being started.
            Vm.status.in_({VmStatus.PROVISIONING, VmStatus.DESTROYING})
            | ((Vm.status == VmStatus.BOOTING) & Vm.first_heartbeat_at.is_(None))
            | (Vm.status.in_({VmStatus.BOOTING, VmStatus.AVAILABLE}) & Vm.hostname.in_(removed)),
        )
        .order_by(Vm.id)
        .with_for_update()
    )
    for vm, progress in await session.execute(unmade):
        actor = Actor.operation(operation_id)
        if progress.state != ProgressState.FAILED:
            progress.state, progress.detail = ProgressState.FAILED, reason
        move_vm(
            session,
            vm,
            VmStatus.FAILED,
            actor=actor,
            at=db.now(),
            reason=progress.detail or reason,
            operation_id=operation_id,
        )


async def _check_room(session: AsyncSession, pool: Pool, count: int) -> None:
    most = min(MAX_VMS, pool.max)
    if not 1 <= count <= most:
        raise InvalidInput(f"count must be from 1 to {most}.", code="invalid_count")
    living = await session.scalar(select(func.count()).where(Vm.pool_id == pool.id, Vm.status.not_in(GONE_VM))) or 0
    if living + count > pool.max:
        raise Conflict(
            f"The pool '{pool.name}' has {living} of at most {pool.max} machines; {count} more do not fit.",
            code="pool_full",
        )


def _new_vm(pool: Pool, number: int, at: object, price: PriceView | None) -> Vm:
    return Vm(
        hostname=f"{pool.name}-{number:03d}",
        pool_id=pool.id,
        origin=Origin.TERRAFORM,
        status=VmStatus.PROVISIONING,
        price_per_hour=Decimal(str(price.per_hour)) if price else 0,
        status_changed_at=at,
        created_at=at,
        updated_at=at,
    )


async def insert_operation(
    session: AsyncSession, db: Database, pool: Pool, kind: OperationKind, vms: Sequence[Vm], actor: Actor
) -> Operation:
    """Queues an operation on VMs that the transaction holds locked, and its job with it."""
    operation = Operation(
        pool_id=pool.id, kind=kind, status=OperationStatus.QUEUED, requested_by=actor.name, created_at=db.now()
    )
    session.add(operation)
    await session.flush()
    session.add_all(OperationVm(operation_id=operation.id, vm_id=vm.id) for vm in vms)
    what = vms[0].hostname if len(vms) == 1 else f"{len(vms)} machines"
    record_event(
        session,
        f"operation.{kind}",
        f"{kind.capitalize()} of {what if vms else 'the state'} in {pool.name} was asked for",
        actor=actor,
        at=db.now(),
        pool_id=pool.id,
        operation_id=operation.id,
    )
    await session.flush()
    operation.job_id = await defer(session, RUN_OPERATION, lock=f"pool:{pool.id}", operation_id=operation.id)
    return operation


async def _list_progress(session: AsyncSession, ids: Collection[int]) -> dict[int, list[ProgressView]]:
    query = (
        select(OperationVm, Vm.hostname)
        .join(Vm, Vm.id == OperationVm.vm_id)
        .where(OperationVm.operation_id.in_(ids))
        .order_by(Vm.hostname)
    )
    progress: dict[int, list[ProgressView]] = defaultdict(list)
    for row, hostname in await session.execute(query):
        progress[row.operation_id].append(ProgressView(hostname, ProgressState(row.state), row.detail, row.elapsed_s))
    return progress


def _view_of(operation: Operation, pool: str, progress: Sequence[ProgressView]) -> OperationView:
    return OperationView(
        id=operation.id,
        pool_id=operation.pool_id,
        pool=pool,
        kind=OperationKind(operation.kind),
        status=OperationStatus(operation.status),
        reason=operation.reason,
        requested_by=operation.requested_by,
        created_at=operation.created_at,
        started_at=operation.started_at,
        finished_at=operation.finished_at,
        cancel_requested_at=operation.cancel_requested_at,
        attempt=operation.attempt,
        progress=tuple(progress),
    )
