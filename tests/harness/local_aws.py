"""A local AWS: moto's server as a process on loopback, and Terraform's real AWS provider that talks to it."""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from botocore.config import Config

from backend.provisioning.aws.clients import make_client
from lablink_ui.bench.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, find_mirror, write_cli_config
from tests.harness.server import free_port
from tests.harness.waiting import until

__all__ = ["AMI_PARAMETER", "CREDENTIALS", "REGION", "LocalAws", "find_mirror", "tags_of", "write_cli_config"]


@dataclass
class _Moto:
    """A process of moto's. What it read of EC2 at first, for two seconds of a core, it keeps when it is emptied."""

    process: subprocess.Popen[bytes]
    port: int


_unused: list[_Moto] = []


class LocalAws:
    """One account, empty but for a default VPC.

    ``recording``: a file for all that it is asked, in moto's own form.
    """

    def __init__(self, directory: Path, *, recording: Path | None = None) -> None:
        self._log, self._recording = directory / "moto.log", recording
        self.cli_config = write_cli_config(directory)
        self._moto: _Moto | None = None
        self._clients: dict[str, Any] = {}

    @property
    def port(self) -> int:
        """Where on this machine it answers."""
        assert self._moto is not None
        return self._moto.port

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

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
        """Starts it, or takes one that somebody has left, and waits until it answers."""
        self._moto = _unused.pop() if _unused and self._recording is None else self._spawn()
        async with httpx.AsyncClient(trust_env=False) as client:

            async def is_empty() -> bool:
                return (await client.post(f"{self.url}/moto-api/reset")).status_code == 200

            await until(is_empty, within_s=60, what="the local AWS answers")
        return self

    def _spawn(self) -> _Moto:
        records = {"MOTO_ENABLE_RECORDING": "true", "MOTO_RECORDER_FILEPATH": str(self._recording)}
        port = free_port()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                env={**os.environ, **CREDENTIALS, **(records if self._recording else {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        atexit.register(process.kill)
        return _Moto(process, port)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It takes connections and answers none."""
        assert self._moto is not None
        self._moto.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._moto.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Leaves it to the next, who empties it."""
        if self._moto is None:
            return
        if self._recording:
            self._moto.process.kill()
            self._moto.process.wait()
        else:
            _unused.append(self._moto)
        self._moto = None

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
