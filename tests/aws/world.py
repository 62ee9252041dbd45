"""A pool on a local AWS, its operations by real Terraform and the real provider, without a server around them."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from backend.db.engine import Database
from backend.db.notices import NoticeListener
from backend.live.read_model import ReadModel
from backend.provisioning.planned import PlanHearer
from backend.provisioning.providers.aws import AwsProvider
from backend.provisioning.steps import Worker
from backend.services.aws_spec import AwsSpec
from backend.services.destroys import request_destroy
from backend.services.findings import FindingView, list_findings
from backend.services.operation_logs import list_operation_log
from backend.services.operations import get_operation, request_launch
from backend.services.pools import PoolSpec, ensure_pool, get_pool
from backend.services.views import OperationView
from backend.services.vms import get_vm
from backend.tasks.owner import this_process
from backend.tasks.reconcile import Mended, Reconciler
from tests.harness.local_aws import AMI_PARAMETER, LocalAws
from tests.services.worlds import ADMIN


class AwsWorld:
    """One pool, named ``name``; tests that share an AWS give each its own."""

    def __init__(self, db: Database, aws: LocalAws, provider: AwsProvider, home: Path, name: str) -> None:
        self.db, self.aws, self.provider, self.name = db, aws, provider, name
        self._home, self.server = home, provider._settings.public_url
        self.worker = Worker(
            db=db,
            home=home,
            binary=Path(shutil.which("terraform") or "terraform"),
            providers={"aws": provider},
            owner=this_process(),
        )
        live = ReadModel(db, NoticeListener(db.conninfo))
        self.reconciler = Reconciler(db, {"aws": provider}, live)

    async def make_pool(self, **spec: Any) -> None:
        aws = AwsSpec(**{"ami": AMI_PARAMETER, "instance_types": ("t3.large",), "volume_gb": 10, **spec})
        await ensure_pool(
            self.db, self.name, PoolSpec(provider="aws", providers=("aws",), max=20, aws=aws), actor=ADMIN
        )

    async def launch(self, count: int) -> OperationView:
        return await self.carry_out((await request_launch(self.db, self.name, count, actor=ADMIN)).id)

    async def destroy(self, *hostnames: str) -> OperationView:
        (operation,) = await request_destroy(self.db, hostnames, actor=ADMIN)
        return await self.carry_out(operation.id)

    async def carry_out(self, operation_id: int) -> OperationView:
        await self.worker.run_operation(operation_id)
        return await get_operation(self.db, operation_id)

    async def look(self) -> dict[str, FindingView]:
        """The findings after a fresh look, as ``kind subject``."""
        await self.reconciler.look()
        return {f"{each.kind} {each.subject}": each for each in await list_findings(self.db)}

    async def mend(self, finding: FindingView) -> Mended:
        return await self.reconciler.mend(finding.id, actor=ADMIN)

    async def rebuild(self, finding: FindingView) -> OperationView:
        """Mends by an operation, and returns that as it ended."""
        mended = await self.mend(finding)
        assert mended.operation_id is not None
        return await self.carry_out(mended.operation_id)

    async def log(self, operation: OperationView) -> str:
        return "\n".join(line.message for line in await list_operation_log(self.db, operation.id))

    async def status(self, hostname: str) -> str:
        return str((await get_vm(self.db, hostname)).status)

    async def instances(self) -> dict[str, dict[str, Any]]:
        return await asyncio.to_thread(self.aws.list_instances, Pool=self.name)

    async def ids(self) -> dict[str, str]:
        return {name: each["InstanceId"] for name, each in (await self.instances()).items()}

    async def directory(self) -> Path:
        return self._home / "pools" / str((await get_pool(self.db, self.name)).id)

    async def state(self) -> dict[str, Any]:
        return json.loads(((await self.directory()) / "terraform.tfstate").read_text())

    async def plan(self) -> list[tuple[str, str]]:
        """What Terraform by hand would do now: every address of which something would become."""
        options = {"cwd": await self.directory(), "env": self.aws.terraform_environment, "capture_output": True}
        command = [self.worker.binary, "plan", "-input=false", "-json"]
        done = await asyncio.to_thread(subprocess.run, command, check=True, **options)
        hearer = PlanHearer()
        for line in done.stdout.decode().splitlines():
            hearer.hear(line)
        return [(each.address, each.action) for each in hearer.list_changes()]
