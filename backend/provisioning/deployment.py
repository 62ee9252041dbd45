"""`lablink deploy`: the server's own host on AWS, by Terraform (terraform/allocator), in one environment.

The state of `dev` lies in the data directory; `test` and `prod` keep theirs in a bucket, which ``ensure_state_bucket``
makes. What people would miss is guarded: no apply replaces the host or the database unless it is told to, and a destroy
leaves the backups and the secret that opens them, which the next apply takes in again.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from python_terraform import IsFlagged

from backend.errors import InvalidInput
from backend.provisioning.deployment_aws import Account
from backend.provisioning.output import OutputLine
from backend.provisioning.planned import PlannedChange
from backend.provisioning.runner import LESS_COLLECTING, TerraformRunner, write_private
from backend.resources import terraform_dir

ENVIRONMENTS = ("dev", "test", "prod")
# Older ones know neither write-only arguments nor S3's lock file.
OLDEST_TERRAFORM = (1, 11)
AT_ONCE = 10
# What holds something that cannot be made again.
HOLDERS = ("aws_instance.server", "aws_db_instance.server", "aws_s3_bucket.backup", "aws_secretsmanager_secret.server")
# What a destroy leaves: the backups with all that protects them, and the keys.
KEPT = (
    "aws_s3_bucket.backup",
    "aws_s3_bucket_lifecycle_configuration.backup",
    "aws_s3_bucket_policy.backup",
    "aws_s3_bucket_public_access_block.backup",
    "aws_s3_bucket_server_side_encryption_configuration.backup",
    "aws_s3_bucket_versioning.backup",
    "aws_secretsmanager_secret.server",
)
# Terraform wants every variable, though a destroy reads none of these.
_ANY = {"domain": "none.invalid", "image": "none", "image_tag": "0.0.0", "owner": "nobody"}
_LOCAL_BACKEND = 'terraform {\n  backend "local" {}\n}\n'
# The person's own shell decides which account it is, and where Terraform finds its providers.
_PASSED = ("TF_CLI_CONFIG_FILE", "TF_PLUGIN_CACHE_DIR", "SSL_CERT_FILE")
_SIGNS = {"create": "+", "update": "~", "delete": "-", "replace": "-/+"}


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a preview: ``sign`` as Terraform writes it (+, ~, -, -/+), or = for what is kept."""

    sign: str
    address: str

    @property
    def is_loss(self) -> bool:
        """Whether it ends something that cannot be made again."""
        return "-" in self.sign and self.address.partition("[")[0] in HOLDERS


@dataclass
class Deployment:
    """The server's host in one environment. ``variables`` are those of terraform/allocator."""

    environment: str
    variables: Mapping[str, Any]
    home: Path
    binary: Path
    account: Account
    on_line: Callable[[OutputLine], None] = lambda _: None
    _runner: TerraformRunner = field(init=False)
    _addresses: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._runner = TerraformRunner(
            binary=self.binary,
            module=terraform_dir("allocator"),
            directory=self.home / "deploy" / self.environment,
            environment=_own_environment(self.account.region),
            on_line=self.on_line,
        )

    @property
    def directory(self) -> Path:
        """Where Terraform runs."""
        return self._runner.directory

    async def open(self) -> None:
        """Makes ready, and looks up what the state holds.

        Raises:
            NotFound: the state's bucket is not there yet.
            TerraformFailed
        """
        if self.environment == "dev":
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self.directory / "backend_override.tf", _LOCAL_BACKEND)
            await self._runner.init()
        else:
            bucket = await asyncio.to_thread(self.account.get_state_bucket, self.environment)
            config = [f"backend-{self.environment}.hcl", f"bucket={bucket}", f"region={self.account.region}"]
            await self._runner.init(backend_config=config, reconfigure=IsFlagged)
        self._addresses = await self._runner.list_addresses()

    async def plan(self) -> list[Change]:
        """What an apply would change.

        Raises:
            TerraformFailed, PlanUnclear
        """
        return _changes(await self._runner.plan(await self._all_variables(), parallelism=AT_ONCE))

    async def show_plan(self) -> dict[str, Any]:
        """The last plan with all its values, as Terraform writes it.

        Raises:
            TerraformFailed
        """
        return await self._runner.show_plan()

    async def plan_destroy(self, *, with_backups: bool) -> list[Change]:
        """What a destroy would change.

        Raises:
            TerraformFailed
        """
        changes = _changes(await self._plan_destroy())
        if with_backups:
            # What an earlier destroy left is not in the state any more.
            left = await asyncio.to_thread(self.account.list_kept, self.environment)
            known = {each.address for each in changes}
            return [*changes, *(Change("-", address) for address in left if address not in known)]
        return [Change("=", each.address) if each.address in KEPT else each for each in changes]

    async def apply(self) -> dict[str, Any]:
        """Applies exactly the last plan; returns the outputs.

        Raises:
            TerraformFailed
        """
        await self._runner.apply(parallelism=AT_ONCE)
        return await self._runner.list_outputs()

    async def destroy(self, *, with_backups: bool) -> None:
        """Destroys it all, but for the backups and the secret unless ``with_backups``.

        Raises:
            TerraformFailed
        """
        if with_backups:
            await asyncio.to_thread(self.account.empty_backup_bucket, self.environment)
        else:
            kept = [address for address in KEPT if address in self._addresses]
            if kept:
                await self._runner.forget(kept)
            await self._plan_destroy()
        await self._runner.apply(parallelism=AT_ONCE)
        if with_backups:
            await asyncio.to_thread(self.account.remove_kept, self.environment)

    async def _plan_destroy(self) -> list[PlannedChange]:
        variables = {**_ANY, **await self._all_variables()}
        return await self._runner.plan(variables, parallelism=AT_ONCE, destroy=IsFlagged)

    async def _all_variables(self) -> dict[str, Any]:
        """What was given, and what is ours to know."""
        own: dict[str, Any] = {"environment": self.environment, "region": self.account.region}
        if self.environment != "dev":
            own["state_bucket"] = self.account.state_bucket(self.environment)
        kept = await asyncio.to_thread(self.account.list_kept, self.environment)
        for address, name in (
            ("aws_s3_bucket.backup", "kept_bucket"),
            ("aws_secretsmanager_secret.server", "kept_secret_arn"),
        ):
            if address not in self._addresses:
                own[name] = kept.get(address)
        if clash := own.keys() & self.variables.keys():
            raise InvalidInput(f"{', '.join(sorted(clash))} cannot be given: it follows from the rest.")
        return {**self.variables, **own}


def _changes(planned: Iterable[PlannedChange]) -> list[Change]:
    """What changes, by address; what is only taken into the state or moved within it does not count."""
    changes = [
        Change(_SIGNS.get(each.action, "?"), each.address) for each in planned if each.action not in {"import", "move"}
    ]
    return sorted(changes, key=lambda each: each.address)


def _own_environment(region: str) -> dict[str, str]:
    passed = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in _PASSED}
    return {**LESS_COLLECTING, **passed, "AWS_REGION": region}
