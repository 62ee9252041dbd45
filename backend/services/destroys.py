"""Destroying: machines are taken away, with the seats on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict
from backend.models import Claim, Operation, Pool, Vm
from backend.pauses import AT_ONCE
from backend.services.actor import Actor
from backend.services.command_queue import queue_command
from backend.services.commands import cancel_open_commands
from backend.services.moves import move_claim, move_vm
from backend.services.operations import insert_operation, list_operations
from backend.services.pools import get_pool_row
from backend.services.sessions import list_held
from backend.services.terminal_ends import end_terminals_of_claim
from backend.services.views import OperationView
from backend.services.vms import lock_vms
from backend.states import GONE_VM, HOLDING_CLAIM, ClaimStatus, CommandKind, OperationKind, Origin, VmStatus

STOP_DEADLINE_S = 60


async def request_destroy(db: Database, hostnames: Collection[str], *, actor: Actor) -> list[OperationView]:
    """Takes these VMs away: one operation per pool; joined machines are let go at once. Seats on them end.

    Raises:
        NotFound: a name is unknown.
        Conflict: all of them are being destroyed already.
    """
    actor.must_operate()
    async with db.transaction() as session:
        vms = [vm for vm in await lock_vms(session, hostnames) if vm.status != VmStatus.DESTROYING]
        if not vms:
            raise Conflict("These machines are being destroyed already.", code="already_destroying")
        operations = await destroy_locked(session, db, vms, actor)
    return await list_operations(db, ids=[operation.id for operation in operations])


async def destroy_free(session: AsyncSession, db: Database, pool_id: int, *, actor: Actor) -> Operation | None:
    """Takes away what nobody needs of a pool that is closed: free machines, booting ones, failed ones without a seat.

    Never one that holds a seat, is kept for a look, or is somebody's own. Whoever is just claiming one gets it.
    """
    held = select(Claim.id).where(Claim.vm_id == Vm.id, Claim.status.in_(HOLDING_CLAIM)).exists()
    free = (
        select(Vm)
        .where(
            Vm.pool_id == pool_id,
            Vm.origin == Origin.TERRAFORM,
            Vm.status.in_({VmStatus.AVAILABLE, VmStatus.BOOTING, VmStatus.FAILED}),
            ~held,
        )
        .order_by(Vm.id)
        .with_for_update(skip_locked=True)
    )
    vms = list(await session.scalars(free))
    operations = await destroy_locked(session, db, vms, actor)
    return operations[0] if operations else None


async def request_destroy_pool(db: Database, pool_name: str, *, actor: Actor) -> tuple[list[OperationView], list[str]]:
    """Takes every VM of a pool away; an empty pool is no error. Returns the operations and the hostnames.

    Raises:
        NotFound: no such pool.
    """
    actor.must_operate()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        living = (
            select(Vm.hostname)
            .where(Vm.pool_id == pool.id, Vm.status.not_in({*GONE_VM, VmStatus.DESTROYING}))
            .order_by(Vm.hostname)
        )
        hostnames = list(await session.scalars(living))
    return (await request_destroy(db, hostnames, actor=actor) if hostnames else []), hostnames


async def destroy_locked(session: AsyncSession, db: Database, vms: Sequence[Vm], actor: Actor) -> list[Operation]:
    """The destroying itself, as a step of a transaction that holds the VMs locked: one operation a pool."""
    await _end_seats(session, db, vms, actor)
    await cancel_open_commands(session, [vm.id for vm in vms], detail="the machine is being destroyed", db=db)
    by_pool: dict[int, list[Vm]] = defaultdict(list)
    for number, vm in enumerate(vms, 1):
        vm.email = vm.crd_command = None
        move_vm(session, vm, VmStatus.DESTROYING, actor=actor, at=db.now())
        if vm.origin == Origin.JOINED:
            # Not ours to delete: its agent is told to end, and its token dies with the answer.
            queue_command(session, vm.id, CommandKind.STOP, at=db.now(), deadline_s=STOP_DEADLINE_S)
        else:
            by_pool[vm.pool_id].append(vm)
        if number % AT_ONCE == 0:
            # Here and not all at the end, which would hold up everybody: 77 ms for 100.
            await session.flush()
    operations = []
    for pool_id, group in sorted(by_pool.items()):
        pool = await session.get_one(Pool, pool_id)
        operations.append(await insert_operation(session, db, pool, OperationKind.DESTROY, group, actor))
    return operations


async def _end_seats(session: AsyncSession, db: Database, vms: Sequence[Vm], actor: Actor) -> None:
    for claim in await list_held(session, [vm.id for vm in vms]):
        why = "an organiser removed the machine"
        move_claim(session, claim, ClaimStatus.FAILED, actor=actor, at=db.now(), reason=why)
        await end_terminals_of_claim(session, claim, actor=actor, at=db.now())
