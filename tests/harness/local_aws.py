"""A local AWS: moto's server as a process on loopback, and Terraform's real AWS provider that talks to it."""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import httpx
from botocore.config import Config

from tests.harness.server import free_port
from tests.harness.waiting import until

REGION = "us-east-1"
# One that moto knows without being told.
AMI_PARAMETER = "/aws/service/ami-amazon-linux-latest/amzn2-ami-hvm-x86_64-gp2"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    # Nobody's profile, and no look at a metadata address that is not there.
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
MIRROR_VARIABLE = "LABLINK_TERRAFORM_MIRROR"
_PROVIDER = Path("registry.terraform.io/hashicorp/aws")
# Where Terraform itself looks (developer.hashicorp.com/terraform/cli/config/config-file, "Implied Local Mirror").
_OWN_FOLDERS = (
    "~/.terraform.d/plugins",
    "~/.local/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
    "/usr/share/terraform/plugins",
)
_SEARCHED, _DEEP = ("/opt", "/usr/local", "/usr/lib", "/usr/share", "/srv", "/var/lib", "/var/cache", "~"), 4


class LocalAws:
    """One account, empty but for a default VPC, that lasts as long as its process."""

    def __init__(self, directory: Path) -> None:
        self.port, self.log = free_port(), directory / "moto.log"
        self.url = f"http://127.0.0.1:{self.port}"
        self.cli_config = write_cli_config(directory)
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: dict[str, Any] = {}

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of a server that uses this AWS."""
        return (
            f"aws.region={REGION}",
            f"aws.endpoint_url={self.url}",
            f"terraform.cli_config_file={self.cli_config}",
        )

    @property
    def terraform_environment(self) -> dict[str, str]:
        """What Terraform by hand needs in its environment."""
        return {
            **CREDENTIALS,
            "AWS_REGION": REGION,
            "AWS_ENDPOINT_URL": self.url,
            "TF_CLI_CONFIG_FILE": str(self.cli_config),
            "CHECKPOINT_DISABLE": "1",
            "PATH": os.environ["PATH"],
            "HOME": os.environ["HOME"],
        }

    async def start(self) -> LocalAws:
        """Starts it and waits until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                env={**os.environ, **CREDENTIALS},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with httpx.AsyncClient(trust_env=False) as client:

            async def answers() -> bool:
                return (await client.get(f"{self.url}/moto-api/data.json")).status_code == 200

            await until(answers, within_s=60, what="the local AWS answers")
        return self

    def close(self) -> None:
        """Ends it; all it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self, service: str) -> Any:
        """A boto3 client of this AWS."""
        if service not in self._clients:
            self._clients[service] = boto3.session.Session().client(
                service,
                region_name=REGION,
                endpoint_url=self.url,
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                config=Config(retries={"max_attempts": 1}, proxies={}),
            )
        return self._clients[service]

    def list_instances(self, **tags: str) -> dict[str, dict[str, Any]]:
        """The instances that are not terminated and bear these tags, by their tag ``Name``."""
        filters = [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]
        found = self.client("ec2").describe_instances(Filters=filters)["Reservations"]
        instances = [each for reservation in found for each in reservation["Instances"]]
        return {
            tags_of(each).get("Name", each["InstanceId"]): each
            for each in instances
            if each["State"]["Name"] not in {"terminated", "shutting-down"}
        }

    async def ask(self, service: str, method: str, /, **arguments: Any) -> Any:
        """One call, without holding up the event loop."""
        return await asyncio.to_thread(lambda: getattr(self.client(service), method)(**arguments))


def tags_of(thing: dict[str, Any]) -> dict[str, str]:
    """The tags of an answer of EC2, as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


def write_cli_config(directory: Path) -> Path:
    """Terraform's CLI configuration: providers from a mirror on this disk, where there is one, else the registry."""
    mirror, file = find_mirror(), directory / "terraform.rc"
    cache_dir = directory.parent / "terraform-plugins"
    cache_dir.mkdir(exist_ok=True)
    file.write_text(
        f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'
        if mirror
        else f'plugin_cache_dir = "{cache_dir}"\n',
        encoding="utf-8",
    )
    return file


@cache
def find_mirror() -> Path | None:
    """A folder with the AWS provider for this machine: ``registry.terraform.io/hashicorp/aws/VERSION/OS_ARCH``."""
    named = os.environ.get(MIRROR_VARIABLE)
    candidates = [Path(each).expanduser() for each in ((named,) if named else ()) + _OWN_FOLDERS]
    return next((each for each in (*candidates, *_search()) if _holds_provider(each)), None)


def _holds_provider(mirror: Path) -> bool:
    return any((mirror / _PROVIDER).glob(f"*/{_platform()}"))


def _search() -> Iterator[Path]:
    """Every parent of a ``registry.terraform.io`` in the usual places, not too deep."""
    for root in (Path(each).expanduser() for each in _SEARCHED):
        for here, folders, _ in os.walk(root):
            if _PROVIDER.parts[0] in folders:
                yield Path(here)
            if len(Path(here).relative_to(root).parts) >= _DEEP:
                folders.clear()


def _platform() -> str:
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
    return f"{platform.system().lower()}_{machine.get(platform.machine().lower(), 'unknown')}"
