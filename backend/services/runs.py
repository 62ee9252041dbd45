"""Runs: the worker's side of an operation, from taking its lease to writing down what Terraform made.

A worker holds the lease while it works. Whoever finds it expired may take over: everything here can be done twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.db.jobs import RUN_OPERATION, defer
from backend.errors import Conflict
from backend.models import Event, Operation, OperationLog, OperationVm, Pool, Vm
from backend.redaction import redact
from backend.services.actor import Actor
from backend.services.enrolments import revoke_agents
from backend.services.moves import move_operation, move_vm
from backend.services.operations import give_up_unmade
from backend.services.pools import view_of
from backend.services.views import PoolView
from backend.states import OperationKind, OperationStatus, Origin, ProgressState, VmStatus

LEASE_S = 15
MAX_ATTEMPTS = 3
# facts["place"] of a VM: where and as what its provider made it, or tried to last.
PLACE = "place"
_GIVEN_UP = f"given up after {MAX_ATTEMPTS} attempts that each ended with the death of the server or worker"


class LeaseLost(Conflict):
    """Another worker took this operation over; whoever sees this stops and writes nothing more."""

    code = "lease_lost"


@dataclass(frozen=True, slots=True)
class RunVm:
    """A VM of the pool that Terraform owns. ``is_living``: it has sent a heartbeat, once; ``place``: where it is."""

    id: int
    hostname: str
    is_living: bool
    is_target: bool
    place: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What a worker needs to know to carry out an operation. ``request_id``: of the request that it came of, if any."""

    operation_id: int
    kind: OperationKind
    attempt: int
    pool: PoolView
    vms: tuple[RunVm, ...]
    request_id: str | None = None

    @property
    def targets(self) -> frozenset[str]:
        """The hostnames that the operation is about."""
        return frozenset(vm.hostname for vm in self.vms if vm.is_target)

    @property
    def living(self) -> frozenset[str]:
        """The hostnames that no launch may touch."""
        return frozenset(vm.hostname for vm in self.vms if vm.is_living)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far Terraform is with one VM, in seconds since it began on it."""

    state: ProgressState
    detail: str | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run, secrets removed."""

    at: datetime
    level: str
    message: str


async def begin_run(db: Database, operation_id: int, *, owner: str) -> Run | None:
    """Takes the lease of a queued operation, or of one whose worker died. None if there is nothing (more) to do."""
    async with db.transaction() as session:
        operation = await session.get(Operation, operation_id, with_for_update=True)
        if operation is None or operation.status not in {OperationStatus.QUEUED, OperationStatus.RUNNING}:
            return None
        if operation.lease_owner not in (None, owner) and not _has_expired(operation, db.now()):
            return None
        operation.attempt += 1
        if operation.attempt > MAX_ATTEMPTS:
            await _end(session, db, operation, OperationStatus.FAILED, _GIVEN_UP)
            return None
        if operation.status == OperationStatus.QUEUED:
            actor = Actor.operation(operation_id)
            move_operation(session, operation, OperationStatus.RUNNING, actor=actor, at=db.now())
        _extend(operation, owner, db.now())
        return await _run_of(session, operation)


async def renew_lease(db: Database, operation_id: int, *, owner: str) -> bool:
    """Extends the lease. Returns whether a cancel was asked for.

    Raises:
        LeaseLost: another worker has it, or the operation has ended.
    """
    async with db.transaction() as session:
        operation = await _own(session, operation_id, owner)
        # Asked every second for the cancel; written less often, since each write is a notice to every page.
        if _has_expired(operation, db.now() + timedelta(seconds=LEASE_S * 2 / 3)):
            _extend(operation, owner, db.now())
        return operation.cancel_requested_at is not None


async def record_log(db: Database, operation_id: int, lines: Sequence[LogLine]) -> None:
    """Appends lines to the operation's log."""
    if not lines:
        return
    rows = [
        {"operation_id": operation_id, "at": line.at, "level": line.level, "message": redact(line.message)}
        for line in lines
    ]
    async with db.transaction() as session:
        await session.execute(insert(OperationLog), rows)


async def record_progress(db: Database, operation_id: int, *, owner: str, progress: Mapping[str, Progress]) -> None:
    """Stores progress by hostname, and moves each VM that Terraform is done with.

    Raises:
        LeaseLost: another worker has the operation.
    """
    async with db.transaction() as session:
        operation = await _own(session, operation_id, owner)
        for vm, row in await _lock_targets(session, operation_id, progress):
            news = progress[vm.hostname]
            row.state, row.detail, row.elapsed_s = news.state, news.detail, news.elapsed_s
            if news.state is ProgressState.DONE:
                await _settle(session, db, operation, vm, is_made=operation.kind == OperationKind.LAUNCH)


async def record_places(db: Database, operation_id: int, places: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes down where each of these VMs is about to be made, by hostname."""
    if not places:
        return
    async with db.transaction() as session:
        for vm, _ in await _lock_targets(session, operation_id, places):
            vm.facts = {**vm.facts, PLACE: dict(places[vm.hostname])}


async def take_in(db: Database, operation_id: int, hostnames: Collection[str]) -> None:
    """Makes half-made VMs of earlier runs part of this launch, since its plan replaces them."""
    actor = Actor.operation(operation_id)
    async with db.transaction() as session:
        operation = await session.get_one(Operation, operation_id, with_for_update=True)
        query = select(Vm).where(
            Vm.pool_id == operation.pool_id, Vm.hostname.in_(hostnames), Vm.status == VmStatus.FAILED
        )
        for vm in await session.scalars(query.order_by(Vm.id).with_for_update()):
            await session.merge(OperationVm(operation_id=operation_id, vm_id=vm.id, state=ProgressState.PENDING))
            why = "half-made by an earlier operation; made anew"
            move_vm(session, vm, VmStatus.PROVISIONING, actor=actor, at=db.now(), reason=why, operation_id=operation_id)


async def list_living(db: Database, pool_id: int) -> frozenset[str]:
    """The hostnames of the pool's VMs that have sent a heartbeat by now."""
    query = select(Vm.hostname).where(
        Vm.pool_id == pool_id, Vm.status != VmStatus.DESTROYED, Vm.first_heartbeat_at.is_not(None)
    )
    async with db.transaction() as session:
        return frozenset(await session.scalars(query))


async def list_unfinished(db: Database, pool_id: int) -> frozenset[str]:
    """The hostnames of the pool's VMs that no launch has finished, whatever has become of them since."""
    finished = (
        select(OperationVm.vm_id)
        .join(Operation, Operation.id == OperationVm.operation_id)
        .where(
            OperationVm.vm_id == Vm.id,
            Operation.kind == OperationKind.LAUNCH,
            OperationVm.state == ProgressState.DONE,
        )
    )
    query = select(Vm.hostname).where(
        Vm.pool_id == pool_id,
        Vm.origin == Origin.TERRAFORM,
        Vm.status != VmStatus.DESTROYED,
        ~finished.exists(),
    )
    async with db.transaction() as session:
        return frozenset(await session.scalars(query))


async def finish_run(
    db: Database,
    operation_id: int,
    *,
    owner: str,
    status: OperationStatus,
    reason: str | None,
    existing: Collection[str] | None,
    removed: Collection[str] = (),
) -> None:
    """Ends the operation and settles every VM of it by what exists: the hostnames whole in Terraform's state.

    With ``existing`` None (the state could not be read) only what was reported done counts as done. ``removed``: the
    hostnames of a launch that did not count as made and were taken away again.

    Raises:
        LeaseLost: another worker has the operation.
    """
    async with db.transaction() as session:
        operation = await _own(session, operation_id, owner)
        if existing is not None:
            for vm, row in await _lock_targets(session, operation_id, None):
                is_made = vm.hostname in existing
                if is_made == (operation.kind == OperationKind.LAUNCH):
                    row.state = ProgressState.DONE
                    await _settle(session, db, operation, vm, is_made=is_made)
            await session.flush()
        await _end(session, db, operation, status, reason, removed)


async def recover_runs(db: Database, *, is_dead: Callable[[str], bool], running_here: Collection[int] = ()) -> int:
    """Queues anew every operation whose worker is gone: ``is_dead(owner)``, or long silent. Returns how many.

    A whole lease of patience beyond its end lets a worker that lost only the database come back to it first.
    """
    orphaned = 0
    patience = timedelta(seconds=LEASE_S)
    async with db.transaction() as session:
        query = select(Operation).where(Operation.status == OperationStatus.RUNNING, Operation.id.not_in(running_here))
        for operation in await session.scalars(query.order_by(Operation.id).with_for_update(skip_locked=True)):
            if _has_expired(operation, db.now() - patience) or is_dead(operation.lease_owner or ""):
                operation.lease_owner = operation.lease_expires_at = None
                await _queue_anew(session, operation)
                orphaned += 1
        for operation in (await session.scalars(_queued_without_job())).all():
            await _queue_anew(session, operation)
            orphaned += 1
    return orphaned


async def retry_stalled_jobs(db: Database, *, after_s: float) -> int:
    """Queues anew the jobs of workers that have not been heard of for ``after_s`` (open runs have leases instead)."""
    async with db.transaction() as session:
        stalled = await session.execute(_RETRY_STALLED, {"after_s": after_s})
        return len(stalled.all())


async def _run_of(session: AsyncSession, operation: Operation) -> Run:
    pool = await session.get_one(Pool, operation.pool_id)
    targets = set(await session.scalars(select(OperationVm.vm_id).where(OperationVm.operation_id == operation.id)))
    rows = select(Vm).where(
        Vm.pool_id == operation.pool_id, Vm.origin == Origin.TERRAFORM, Vm.status != VmStatus.DESTROYED
    )
    vms = (await session.scalars(rows.order_by(Vm.hostname))).all()
    asked = select(Event.data).where(Event.operation_id == operation.id).order_by(Event.id).limit(1)
    return Run(
        operation_id=operation.id,
        kind=OperationKind(operation.kind),
        attempt=operation.attempt,
        pool=view_of(pool),
        vms=tuple(
            RunVm(vm.id, vm.hostname, vm.first_heartbeat_at is not None, vm.id in targets, vm.facts.get(PLACE))
            for vm in vms
        ),
        request_id=(await session.scalar(asked) or {}).get("request_id"),
    )


async def _own(session: AsyncSession, operation_id: int, owner: str) -> Operation:
    operation = await session.get(Operation, operation_id, with_for_update=True)
    if operation is None or operation.status != OperationStatus.RUNNING or operation.lease_owner != owner:
        raise LeaseLost(f"Operation {operation_id} was taken over by another worker, or has ended.")
    return operation


async def _lock_targets(
    session: AsyncSession, operation_id: int, hostnames: Iterable[str] | None
) -> Sequence[tuple[Vm, OperationVm]]:
    query = (
        select(Vm, OperationVm)
        .join(OperationVm, OperationVm.vm_id == Vm.id)
        .where(OperationVm.operation_id == operation_id)
        .order_by(Vm.id)
        .with_for_update()
    )
    if hostnames is not None:
        query = query.where(Vm.hostname.in_(list(hostnames)))
    return [(vm, row) for vm, row in (await session.execute(query))]


async def _settle(session: AsyncSession, db: Database, operation: Operation, vm: Vm, *, is_made: bool) -> None:
    actor = Actor.operation(operation.id)
    if is_made and vm.status == VmStatus.PROVISIONING:
        move_vm(session, vm, VmStatus.BOOTING, actor=actor, at=db.now(), operation_id=operation.id)
    elif not is_made and vm.status == VmStatus.DESTROYING:
        move_vm(session, vm, VmStatus.DESTROYED, actor=actor, at=db.now(), operation_id=operation.id)
        await revoke_agents(session, [vm.id], at=db.now())


async def _end(
    session: AsyncSession,
    db: Database,
    operation: Operation,
    status: OperationStatus,
    reason: str | None,
    removed: Collection[str] = (),
) -> None:
    move_operation(session, operation, status, actor=Actor.operation(operation.id), at=db.now(), reason=reason)
    await give_up_unmade(session, db, operation.id, reason=reason or "Terraform did not make it", removed=removed)


def _has_expired(operation: Operation, at: datetime) -> bool:
    return operation.lease_expires_at is None or operation.lease_expires_at <= at


def _extend(operation: Operation, owner: str, at: datetime) -> None:
    operation.lease_owner, operation.lease_expires_at = owner, at + timedelta(seconds=LEASE_S)


async def _queue_anew(session: AsyncSession, operation: Operation) -> None:
    await session.execute(_FINISH_JOB, {"job_id": operation.job_id})
    operation.job_id = await defer(session, RUN_OPERATION, lock=f"pool:{operation.pool_id}", operation_id=operation.id)


def _queued_without_job() -> Select[Operation]:
    """Queued operations whose job ended or whose worker died before it took the lease."""
    return (
        select(Operation)
        .where(Operation.status == OperationStatus.QUEUED, text(_JOB_IS_GONE))
        .order_by(Operation.id)
        .with_for_update(skip_locked=True)
    )


_FINISH_JOB = text(
    "SELECT procrastinate_finish_job_v1(id, 'failed', false) FROM procrastinate_jobs "
    "WHERE id = :job_id AND status = 'doing'"
)
_JOB_IS_GONE = """NOT EXISTS (
    SELECT FROM procrastinate_jobs AS j LEFT JOIN procrastinate_workers AS w ON w.id = j.worker_id
    WHERE j.id = operations.job_id
      AND (j.status = 'todo' OR (j.status = 'doing' AND w.last_heartbeat > now() - interval '15 s')))"""
_RETRY_STALLED = text("""
SELECT procrastinate_retry_job_v2(j.id, now(), NULL, NULL, NULL)
FROM procrastinate_jobs AS j LEFT JOIN procrastinate_workers AS w ON w.id = j.worker_id
WHERE j.status = 'doing'
  AND NOT EXISTS (SELECT FROM operations AS o WHERE o.job_id = j.id AND o.status IN ('queued', 'running'))
  AND (w.id IS NULL OR w.last_heartbeat < now() - make_interval(secs => :after_s))""")
