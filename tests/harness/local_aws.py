"""A local AWS: moto's server as a process on loopback, and Terraform's real AWS provider that talks to it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from botocore.config import Config

from backend.provisioning.aws.clients import make_client
from lablink_ui.bench.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, find_mirror, write_cli_config
from tests.harness.server import free_port
from tests.harness.waiting import until

__all__ = ["AMI_PARAMETER", "CREDENTIALS", "REGION", "LocalAws", "find_mirror", "tags_of", "write_cli_config"]


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

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and answers none."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it; all it held is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def client(self, service: str) -> Any:
        """A client of this AWS."""
        if service not in self._clients:
            self._clients[service] = make_client(
                service,
                REGION,
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
