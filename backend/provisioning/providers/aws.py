"""Provider ``aws``: VMs are EC2 instances, made by ``terraform/aws``."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from backend.provisioning.agent_package import agent_package
from backend.provisioning.aws.clients import AwsClients
from backend.provisioning.aws.ec2 import AwsFailed, Ec2
from backend.provisioning.aws.failures import find_failure
from backend.provisioning.aws.state import StateBucket
from backend.provisioning.boot import Boot, render_user_data
from backend.provisioning.providers import Backend, Inputs, Place, ProviderVm
from backend.provisioning.providers.aws_facts import AwsFacts
from backend.provisioning.providers.facts import Facts
from backend.provisioning.runner import LESS_COLLECTING, write_private
from backend.resources import terraform_dir
from backend.services.views import PoolView
from backend.settings import Settings

# Instances asked for at once: more only meets the throttling of RunInstances.
AT_ONCE = 20
SSH_KEY = "ssh_key"
# The server's start does not wait longer for AWS.
LOOK_S = 10
# How a person or a machine proves to AWS who it is (docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_CA_BUNDLE",
)

logger = logging.getLogger(__name__)


class AwsProvider:
    """EC2 instances of one account and region. A machine may hold somebody's work: nothing is removed by guess."""

    name = "aws"

    def __init__(self, settings: Settings) -> None:
        assert settings.aws.region is not None
        self._settings, self._aws, self._region = settings, settings.aws, settings.aws.region
        ours = {"ManagedBy": "lablink", "Environment": self._aws.environment, "Server": settings.public_url}
        self._ec2 = Ec2(self._region, endpoint_url=self._aws.endpoint_url, tags=ours)
        clients = AwsClients(self._region, endpoint_url=self._aws.endpoint_url)
        name, environment = self._aws.state_bucket, self._aws.environment
        self._bucket = StateBucket(clients, name, environment) if name else None
        self.facts: Facts = AwsFacts(
            clients, tags=ours, server_url=settings.public_url, bucket=self._bucket, pools=settings.home / "pools"
        )

    @property
    def module(self) -> Path:
        """The Terraform module."""
        return terraform_dir(self.name)

    @property
    def environment(self) -> Mapping[str, str]:
        """Credentials, and where to find AWS and Terraform's AWS provider."""
        environment = LESS_COLLECTING | {name: os.environ[name] for name in _CREDENTIALS if name in os.environ}
        environment["AWS_REGION"] = self._region
        if self._aws.endpoint_url:
            environment["AWS_ENDPOINT_URL"] = self._aws.endpoint_url
        if self._settings.terraform.cli_config_file:
            environment["TF_CLI_CONFIG_FILE"] = self._settings.terraform.cli_config_file
        else:
            # 700 MB once, and not for each pool.
            plugins = self._settings.home / "terraform" / "plugins"
            plugins.mkdir(parents=True, exist_ok=True)
            environment["TF_PLUGIN_CACHE_DIR"] = str(plugins)
        return environment

    def backend_of(self, pool: PoolView) -> Backend | None:
        """The bucket, where one is set: encrypted, and locked by a file beside the state while Terraform runs."""
        if self._bucket is None:
            return None
        arguments = {
            "bucket": self._bucket.name,
            "key": self._bucket.key_of(pool),
            "region": self._region,
            "encrypt": True,
            "use_lockfile": True,
        }
        # Bucket names are no host names under a local AWS.
        return Backend("s3", arguments | ({"use_path_style": True} if self._aws.endpoint_url else {}))

    def write_inputs(self, directory: Path, pool: PoolView, vms: Sequence[ProviderVm]) -> Inputs:
        """Only a VM that is made now gets user_data; of the others nothing is said that could change them.

        Nothing is refreshed: it would ask AWS some eight questions about each VM that nobody touches, and make one that
        has vanished anew, without a boot script, because another was asked for.
        """
        spec, first = pool.aws, asdict(pool.aws.list_placements()[0])
        tfvars = {
            "region": self._region,
            "attempts": self._aws.attempts,
            "environment": self._aws.environment,
            "server": self._settings.public_url,
            "owner": self._aws.owner,
            "pool": pool.name,
            "cost": spec.cost or pool.name,
            "permissions_boundary": self._aws.permissions_boundary,
            "vms": {vm.hostname: vm.place or first for vm in vms},
            "user_data": {vm.hostname: self._user_data(pool, vm.hostname, vm.token) for vm in vms if vm.token},
            "ami": spec.ami,
            "volume_gb": spec.volume_gb,
            "spot": spec.spot,
            "vpc_id": spec.vpc_id,
            "ssh_cidrs": list(spec.ssh_cidrs),
            "public_key": _ensure_ssh_key(directory / SSH_KEY) if spec.ssh_key else None,
        }
        return Inputs(tfvars=tfvars, environment={}, parallelism=AT_ONCE, refresh=False)

    def explain(self, said: str) -> str:
        """AWS's codes in sentences; Terraform's log keeps its own words."""
        failure = find_failure(said)
        return str(failure) if failure else said

    async def list_places(self, pool: PoolView) -> Sequence[Place]:
        """Every place of the first type, then those of the next; every zone that has a subnet if none is named.

        Raises:
            AwsFailed
        """
        spec = pool.aws
        if not (spec.zones or spec.subnet_ids):
            zones = await asyncio.to_thread(self._ec2.list_zones, spec.vpc_id)
            spec = replace(spec, zones=tuple(zones))
        return [asdict(each) for each in spec.list_placements()]

    def name_place(self, place: Place) -> str:
        """Such as ``g4dn.xlarge in us-west-2a``."""
        where = place["subnet_id"] or place["zone"]
        return f"{place['instance_type']} in {where or self._region}"

    def is_of_place(self, said: str) -> bool:
        """Whether AWS has no room there; a quota or a permission is the same everywhere."""
        failure = find_failure(said)
        return failure is not None and failure.is_of_place

    async def reboot(self, hostname: str) -> None:
        """Boots an instance again, or boots one that is off."""
        await asyncio.to_thread(self._ec2.reboot, hostname)

    async def power_off(self, hostnames: Collection[str]) -> None:
        """Stops instances; their disks stay, and cost little."""
        await asyncio.to_thread(self._ec2.stop, hostnames)

    async def power_on(self, hostnames: Collection[str]) -> None:
        """Starts the instances that are stopped."""
        await asyncio.to_thread(self._ec2.start, hostnames)

    async def remove_leftovers(self, hostnames: Collection[str]) -> None:
        """Terminates instances that bear this very server's tags and one of these names: it was asked to, or made them.

        Raises:
            AwsFailed: they may still be there.
        """
        removed = await asyncio.to_thread(self._ec2.terminate, hostnames)
        if removed:
            logger.warning("terminated instances that Terraform did not know: %s", ", ".join(removed))

    async def remove_strangers(self, known: Collection[str]) -> list[str]:
        """Removes none, and names them in the log: an instance that no row knows may hold somebody's work."""
        try:
            async with asyncio.timeout(LOOK_S):
                found = await asyncio.to_thread(self._ec2.list_instances, attempts=1)
        except (AwsFailed, TimeoutError) as exc:
            logger.warning("whether instances run that no row knows could not be found out: %s", exc or "no answer")
            return []
        for each in found:
            if each.hostname not in known:
                logger.warning("%s (%s, %s) is tagged as ours, but no row knows it", each.id, each.hostname, each.state)
        return []

    def _user_data(self, pool: PoolView, hostname: str, token: str) -> str:
        return render_user_data(
            Boot(
                hostname=hostname,
                server_url=self._settings.public_url,
                enrolment_token=token,
                agent=agent_package(),
                image=pool.aws.image,
                is_spot=pool.aws.spot,
            )
        )


def _ensure_ssh_key(file: Path) -> str:
    """The public half of the pool's key, in OpenSSH's form; the private one stays in ``file``."""
    if not file.exists():
        private, form = serialization.PrivateFormat.OpenSSH, serialization.Encoding.PEM
        made = Ed25519PrivateKey.generate().private_bytes(form, private, serialization.NoEncryption())
        write_private(file, made.decode("ascii"))
    key = serialization.load_ssh_private_key(file.read_bytes(), password=None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return public.decode("ascii")
