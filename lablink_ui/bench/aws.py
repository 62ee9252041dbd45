"""One machine added to a pool on AWS of 10 and of 200: what refresh, plan and apply take, against moto."""

from __future__ import annotations

import asyncio
import copy
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from backend.provisioning.aws.clients import make_client
from backend.provisioning.output import VM_RESOURCE
from backend.provisioning.planned import PlannedChange
from backend.provisioning.providers import ProviderVm
from backend.provisioning.providers.aws import AwsProvider
from backend.provisioning.runner import TerraformRunner, write_private
from backend.provisioning.state_files import STATE
from backend.provisioning.terraform_binary import ensure_terraform
from backend.services.aws_spec import AwsSpec
from backend.services.views import PoolView
from backend.settings import load_settings
from lablink_ui.bench.conditions import Cores, Sizes, pinned_to
from lablink_ui.bench.figures import BenchFailed, Figure, Report, S
from lablink_ui.bench.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, write_cli_config
from lablink_ui.bench.server import free_port, running

NOTE = (
    "aws: refresh is what a launch spares itself (it takes the state at its word). AWS is moto on the same cores: apply"
    " is mostly the waiting of Terraform's own provider, and refresh moto's speed; real AWS was not measured."
)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds for one machine more."""

    refresh_s: float
    plan_s: float
    apply_s: float


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """Adds one machine to a pool of each size, the smaller first; the larger is held against the smaller.

    Raises:
        BenchFailed: the local AWS or Terraform failed, or a plan touched another machine.
    """
    small, large = sizes.aws_pools
    with tempfile.TemporaryDirectory(prefix="lablink-bench-") as directory, pinned_to(cores.all):
        port, home = free_port(), Path(directory)
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        moto = running(
            command, port, "/moto-api/data.json", cores=cores.all, directory=home, environment=dict(CREDENTIALS)
        )
        async with moto:
            pool = await _Pool.open(home, f"http://127.0.0.1:{port}")
            await pool.add()
            found = []
            for size in (small, large):
                await asyncio.to_thread(pool.grow, size)
                found.append(await pool.add())
    at_small, at_large = found
    limit = f"the same at {small} machines"
    return Report(
        [
            Figure("aws", f"one more at {large}: {what}", S, getattr(at_large, key), getattr(at_small, key), limit)
            for key, what in (("plan_s", "plan"), ("apply_s", "apply"), ("refresh_s", "refresh"))
        ],
        [NOTE],
    )


class _Pool:
    """A pool that Terraform knows; most of its machines were not made one by one."""

    def __init__(self, provider: AwsProvider, runner: TerraformRunner, endpoint_url: str) -> None:
        self._provider, self._runner, self._endpoint_url = provider, runner, endpoint_url
        spec = AwsSpec(ami=AMI_PARAMETER)
        # All that the provider reads of a pool.
        self._view = cast("PoolView", SimpleNamespace(id=1, name="bench", provider="aws", aws=spec))
        self._hostnames: list[str] = []

    @classmethod
    async def open(cls, home: Path, endpoint_url: str) -> _Pool:
        keys = [f"aws.region={REGION}", f"aws.endpoint_url={endpoint_url}"]
        keys.append(f"terraform.cli_config_file={write_cli_config(home)}")
        settings = load_settings(keys, environment={"LABLINK_HOME": str(home / "home")})
        provider = AwsProvider(settings)
        environment = {**provider.environment, **CREDENTIALS}
        binary = await ensure_terraform(settings.home, download=True)
        runner = TerraformRunner(binary, provider.module, home / "pool", environment=environment)
        await runner.init()
        return cls(provider, runner, endpoint_url)

    async def add(self) -> Times:
        """One machine more, as a launch makes it."""
        new = f"bench-{len(self._hostnames) + 1:03d}"
        vms = [*map(ProviderVm, self._hostnames), ProviderVm(new, "a-token")]
        inputs = self._provider.write_inputs(self._runner.directory, self._view, vms)
        refreshed_s, _ = await self._plan(inputs.tfvars, inputs.parallelism, refresh=True)
        plan_s, plan = await self._plan(inputs.tfvars, inputs.parallelism, refresh=False)
        touched = [each.key for each in plan if each.name == VM_RESOURCE]
        if touched != [new]:
            raise BenchFailed(f"a plan for {new} would touch {touched}")
        began = time.monotonic()
        await self._runner.apply(parallelism=inputs.parallelism)
        self._hostnames.append(new)
        return Times(max(refreshed_s - plan_s, 0), plan_s, time.monotonic() - began)

    def grow(self, size: int) -> None:
        """Makes copies of the first machine, all at once, and writes them into the state."""
        added = [f"bench-{number:03d}" for number in range(len(self._hostnames) + 1, size + 1)]
        state = json.loads((self._runner.directory / STATE).read_text(encoding="utf-8"))
        (machines,) = (each for each in state["resources"] if (each["mode"], each["name"]) == ("managed", VM_RESOURCE))
        first = machines["instances"][0]
        made = self._run_copies(first["attributes"], len(added))
        machines["instances"] += [_copy(first, *pair) for pair in zip(added, made, strict=True)]
        state["serial"] += 1
        write_private(self._runner.directory / STATE, json.dumps(state))
        self._hostnames += added

    def _run_copies(self, attributes: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
        ec2 = make_client(
            "ec2",
            REGION,
            endpoint_url=self._endpoint_url,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        )
        answer = ec2.run_instances(
            ImageId=attributes["ami"],
            InstanceType=attributes["instance_type"],
            SubnetId=attributes["subnet_id"],
            MinCount=count,
            MaxCount=count,
        )
        return cast("list[dict[str, Any]]", answer["Instances"])

    async def _plan(
        self, tfvars: Mapping[str, Any], parallelism: int, *, refresh: bool
    ) -> tuple[float, list[PlannedChange]]:
        began = time.monotonic()
        plan = await self._runner.plan(tfvars, parallelism=parallelism, refresh=refresh)
        return time.monotonic() - began, plan


def _copy(first: dict[str, Any], hostname: str, made: Mapping[str, Any]) -> dict[str, Any]:
    instance = copy.deepcopy(first)
    instance["index_key"] = hostname
    instance["attributes"]["id"] = made["InstanceId"]
    return instance
