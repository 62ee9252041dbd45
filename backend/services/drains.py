"""Draining: a machine is not offered any more, and leaves the pool's offer once its seat has ended."""

from __future__ import annotations

from collections.abc import Collection

from backend.db.engine import Database
from backend.errors import Conflict
from backend.services.actor import Actor
from backend.services.moves import move_vm, record_event
from backend.services.sessions import DRAINED_BY
from backend.services.vms import lock_vms
from backend.states import VmStatus

_AFTER_THE_SEAT = {VmStatus.IN_USE, VmStatus.CLEANING}


async def drain_vms(db: Database, hostnames: Collection[str], *, actor: Actor) -> list[str]:
    """Takes machines off the offer: free ones now, the others when they come free. Repair brings them back.

    Raises:
        NotFound: a name is unknown.
        Conflict: none of them is in its pool.
    """
    actor.must_operate()
    who = actor.name.rpartition(":")[2]
    async with db.transaction() as session:
        drained = []
        for vm in await lock_vms(session, hostnames):
            if vm.status == VmStatus.AVAILABLE:
                move_vm(session, vm, VmStatus.QUARANTINED, actor=actor, at=db.now(), reason=f"drained by {who}")
            elif vm.status in _AFTER_THE_SEAT and DRAINED_BY not in vm.facts:
                vm.facts, vm.updated_at = {**vm.facts, DRAINED_BY: who}, db.now()
                message = f"{vm.hostname} will not be offered after this seat"
                record_event(session, "vm.draining", message, actor=actor, at=db.now(), pool_id=vm.pool_id, vm_id=vm.id)
            else:
                continue
            drained.append(vm.hostname)
        if not drained:
            raise Conflict("None of these machines can be drained now.", code="cannot_drain")
        return drained
