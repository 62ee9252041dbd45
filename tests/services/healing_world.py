"""A world for tests of healing: a pool of machines, agents that beat, operations that are carried out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy import text

from backend.db.engine import Database
from backend.services.enrolments import announce_boot, authenticate_agent, create_vm_enrolments
from backend.services.healing import heal
from backend.services.healing_limits import HealingLimits
from backend.services.heartbeats import HeartbeatReport, record_heartbeats
from backend.services.operations import list_operations, request_launch
from backend.services.pools import PoolSpec, create_pool
from backend.services.rescues import bring_back_seats, rescue_seats
from backend.services.runs import begin_run, finish_run
from backend.services.views import VmView
from backend.services.vms import fail_overdue_vms, list_vms, record_silence
from backend.states import OperationKind, OperationStatus, VmStatus
from tests.services.worlds import ADMIN, report

OWNER = "test:1:1"
SILENT_S = 50


class World:
    """One pool, whose clock is moved by hand. ``dead``: the machines whose agents beat no more."""

    def __init__(self, db: Database, clock, limits: HealingLimits) -> None:
        self.db, self.clock, self.limits = db, clock, limits
        self.dead: set[str] = set()
        self.launches_fail = False
        self.boots_fail = False
        self._beats: dict[str, HeartbeatReport] = {}

    async def open_pool(self, machines: int, **spec: object) -> None:
        """Makes the pool and its machines, which become available."""
        values = {"max": machines, "unreachable_grace_s": 60, "boot_deadline_s": 300} | spec
        await create_pool(self.db, "lab", PoolSpec(**values), actor=ADMIN)  # type: ignore[arg-type]
        await request_launch(self.db, "lab", machines, actor=ADMIN)
        await self.work()

    async def vms(self, *statuses: VmStatus) -> list[VmView]:
        """The living machines, or those in one of these states."""
        return [vm for vm in await list_vms(self.db) if not statuses or vm.status in statuses]

    async def work(self) -> None:
        """Operations are carried out, machines that were made or rebooted boot, and all that live beat."""
        for operation in reversed(await list_operations(self.db, only_open=True)):
            await self._carry_out(operation.id, operation.kind)
        booting = [vm for vm in await self.vms(VmStatus.BOOTING) if vm.hostname not in self.dead]
        if not self.boots_fail:
            await self._boot([vm for vm in booting if vm.hostname not in self._beats])
        await self.beat()

    async def beat(self, **changes: object) -> None:
        """Every machine that lives beats once."""
        beats = [each for name, each in self._beats.items() if name not in self.dead]
        await record_heartbeats(self.db, [replace(each, at=self.db.now(), **changes) for each in beats])

    async def beat_of(self, hostname: str, **changes: object) -> None:
        """One machine beats, and says this from now on."""
        self._beats[hostname] = replace(self._beats[hostname], at=self.db.now(), **changes)  # type: ignore[arg-type]
        await record_heartbeats(self.db, [self._beats[hostname]])

    async def pass_time(self, seconds: float, *, step_s: float = 60) -> None:
        """Time passes; the server sweeps, agents beat and operations are carried out."""
        while seconds > 0:
            self.clock.advance(min(step_s, seconds))
            seconds -= step_s
            await self.work()
            await self.sweep()

    async def sweep(self) -> None:
        """What the server does every few seconds."""
        await record_silence(self.db, after_s=SILENT_S)
        await fail_overdue_vms(self.db)
        await rescue_seats(self.db, self.limits)
        await bring_back_seats(self.db)
        await heal(self.db, self.limits)

    async def _carry_out(self, operation_id: int, kind: OperationKind) -> None:
        run = await begin_run(self.db, operation_id, owner=OWNER)
        assert run is not None
        fails = self.launches_fail and kind is OperationKind.LAUNCH
        existing = {vm.hostname for vm in run.vms if not vm.is_target}
        if kind is OperationKind.LAUNCH and not fails:
            existing |= run.targets
        status, reason = (OperationStatus.FAILED, "no capacity") if fails else (OperationStatus.SUCCEEDED, None)
        await finish_run(self.db, operation_id, owner=OWNER, status=status, reason=reason, existing=existing)

    async def _boot(self, vms: Sequence[VmView]) -> None:
        tokens = await create_vm_enrolments(self.db, [vm.id for vm in vms], actor=ADMIN)
        for vm in vms:
            said = {"hostname": vm.hostname, "boot_id": "boot-1", "agent_version": "1"}
            enrolled = await announce_boot(self.db, tokens[vm.id], **said)
            agent = await authenticate_agent(self.db, enrolled.agent_token or "")
            self._beats[vm.hostname] = report(self.db, vm.id, agent.enrolment_id)

    async def boot_anew(self, hostname: str, boot_id: str) -> None:
        """A reboot comes to its end: the agent announces itself, and beats."""
        vm_id = self._beats[hostname].vm_id
        async with self.db.transaction() as session:
            # What the announcement with the agent token does; tokens are not kept here.
            await session.execute(
                text("UPDATE vms SET boot_id = :boot, facts = facts - 'awaiting_boot' WHERE id = :id"),
                {"boot": boot_id, "id": vm_id},
            )
        await self.beat_of(hostname, boot_id=boot_id)


def names(vms: Collection[VmView]) -> set[str]:
    """Their hostnames."""
    return {vm.hostname for vm in vms}
