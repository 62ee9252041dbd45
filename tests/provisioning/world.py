"""A pool whose operations are carried out by real Terraform, without a server around them."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from backend.db.engine import Database
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.providers import Inputs, ProviderVm
from backend.provisioning.providers.local import LocalProvider
from backend.provisioning.steps import Worker
from backend.services.destroys import request_destroy
from backend.services.enrolments import announce_boot, authenticate_agent
from backend.services.heartbeats import record_heartbeats
from backend.services.operation_logs import list_operation_log
from backend.services.operations import get_operation, request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.views import OperationView, PoolView
from backend.services.vms import get_vm
from backend.settings import load_settings
from backend.tasks.owner import this_process
from tests.harness.server import free_port
from tests.harness.waiting import until
from tests.services.worlds import ADMIN, report

# Stands in for the Python that Terraform runs: starts the VM as ever, but for some it waits then, and fails when told.
PYTHON = """#!/bin/sh
{python} "$@" || exit $?
[ "$3" = start ] && [ -e {broken}/"$LABLINK_VM" ] || exit 0
read when < {broken}/"$LABLINK_VM"
exit 7
"""


class FlakyProvider(LocalProvider):
    """Provider ``local``, with machines that Terraform is kept from finishing."""

    def __init__(self, settings, directory: Path) -> None:
        super().__init__(settings)
        self.broken, self._bin = directory / "broken", directory / "bin"
        for made in (self.broken, self._bin):
            made.mkdir()
        python = self._bin / "python3"
        python.write_text(PYTHON.format(python=sys.executable, broken=self.broken))
        python.chmod(0o755)

    def write_inputs(self, directory: Path, pool: PoolView, vms: list[ProviderVm]) -> Inputs:
        inputs = super().write_inputs(directory, pool, vms)
        environment = {**inputs.environment, "PATH": f"{self._bin}{os.pathsep}{inputs.environment['PATH']}"}
        return Inputs(inputs.tfvars, environment, inputs.parallelism)


class World:
    """One pool named ``lab``, its operations and its machines."""

    def __init__(self, db: Database, directory: Path) -> None:
        settings = load_settings([f"server.port={free_port()}"], environment={"LABLINK_HOME": str(directory / "home")})
        self.db = db
        self.provider = FlakyProvider(settings, directory)
        self.vms = LocalVms(settings.home / "vms")
        self.directory = settings.home / "pools" / "1"
        self.worker = Worker(
            db=db,
            home=settings.home,
            binary=Path(shutil.which("terraform") or "terraform"),
            providers={"local": self.provider},
            owner=this_process(),
        )

    async def launch(self, count: int, *, meanwhile: Callable[[], object] | None = None) -> OperationView:
        """Launches, and returns the operation as it ended; ``meanwhile`` is awaited beside it."""
        await ensure_pool(self.db, "lab", PoolSpec(max=20), actor=ADMIN)
        return await self.carry_out((await request_launch(self.db, "lab", count, actor=ADMIN)).id, meanwhile)

    async def destroy(self, *hostnames: str) -> OperationView:
        (operation,) = await request_destroy(self.db, hostnames, actor=ADMIN)
        return await self.carry_out(operation.id)

    async def carry_out(self, operation_id: int, meanwhile: Callable[[], object] | None = None) -> OperationView:
        works = [self.worker.run_operation(operation_id)] + ([meanwhile()] if meanwhile else [])  # type: ignore[list-item]
        await asyncio.gather(*works)
        return await get_operation(self.db, operation_id)

    async def begins(self, hostname: str) -> None:
        """Waits until the machine is being started."""
        await until((self.vms.root / hostname / "agent.log").exists, every_s=0.01, what=f"{hostname} begins")

    def hold(self, hostname: str) -> None:
        """Terraform will not be done with this machine, though it runs, before ``fail``."""
        os.mkfifo(self.provider.broken / hostname)

    async def fail(self, hostname: str) -> None:
        """Terraform is kept from finishing a machine that is held, this once."""
        held = self.provider.broken / hostname
        await asyncio.to_thread(held.write_text, "now\n")
        held.unlink()

    async def log(self, operation: OperationView) -> str:
        return "\n".join(line.message for line in await list_operation_log(self.db, operation.id))

    def token_of(self, hostname: str) -> str:
        """The enrolment token that the machine was given."""
        kept = json.loads((self.vms.root / hostname / "vm.json").read_text())
        return str(kept["token"])

    async def beat(self, hostname: str) -> None:
        """The machine enrols and sends its first heartbeat."""
        await until((self.vms.root / hostname / "vm.json").exists, every_s=0.01)
        enrolled = await announce_boot(
            self.db, self.token_of(hostname), hostname=hostname, boot_id="boot-1", agent_version="1"
        )
        assert enrolled.agent_token is not None
        agent = await authenticate_agent(self.db, enrolled.agent_token)
        await record_heartbeats(self.db, [report(self.db, agent.vm_id, agent.enrolment_id)])

    async def status(self, hostname: str) -> str:
        return str((await get_vm(self.db, hostname)).status)

    def terraform(self, *arguments: str) -> str:
        """Terraform by hand, as somebody may run it in the pool's directory."""
        run = subprocess.run(
            [self.worker.binary, *arguments], cwd=self.directory, capture_output=True, text=True, check=True
        )
        return run.stdout

    def close(self) -> None:
        for hostname in self.vms.list_existing():
            self.vms.stop(hostname)
