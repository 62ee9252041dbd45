from __future__ import annotations

import pytest

from backend.db.engine import Database
from backend.errors import Conflict
from backend.services.claims import release_vms, request_claim
from backend.services.drains import drain_vms
from backend.services.vms import get_vm, request_repair
from tests.services.worlds import ADMIN, make_machines, obey, status_of

OWNER = b"o" * 32


async def test_a_free_machine_that_is_drained_leaves_the_offer_at_once(db: Database) -> None:
    await make_machines(db, 1)
    assert await drain_vms(db, ["lab-m0"], actor=ADMIN) == ["lab-m0"]
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.reason) == ("quarantined", "drained by test")
    assert (await request_claim(db, "lab", "ada@lab.org", owner_hash=OWNER)).claim.status == "waiting"


async def test_a_machine_in_use_keeps_its_seat_and_leaves_the_offer_after_it(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=OWNER)
    await obey(db, machine.vm_id)
    await drain_vms(db, ["lab-m0"], actor=ADMIN)
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.is_draining) == ("in-use", True)
    with pytest.raises(Conflict):
        await drain_vms(db, ["lab-m0"], actor=ADMIN)
    await release_vms(db, ["lab-m0"], actor=ADMIN)
    await obey(db, machine.vm_id)
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.reason, vm.is_draining) == ("quarantined", "drained by test", False)


async def test_a_drained_machine_comes_back_by_repair(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    await drain_vms(db, ["lab-m0"], actor=ADMIN)
    await request_repair(db, ["lab-m0"], actor=ADMIN)
    assert await status_of(db, "lab-m0") == "booting"
    assert "reboot" in await obey(db, machine.vm_id)
