"""What happens on an instance, done by the test: nothing boots in a local AWS."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from agent import leftovers
from tests.harness.local_aws import LocalAws

_VALUE = re.compile(r"^(server_url|hostname|enrolment_token)=(.+)$", re.MULTILINE)


async def read_user_data(aws: LocalAws, instance_id: str) -> dict[str, str]:
    """The values that the server filled into an instance's ``user_data``, as EC2 hands it out."""
    said = await aws.ask("ec2", "describe_instance_attribute", InstanceId=instance_id, Attribute="userData")
    script = base64.b64decode(said["UserData"]["Value"]).decode()
    assert len(script.encode()) < 16_384
    return {name: "".join(shlex.split(value)) for name, value in _VALUE.findall(script)}


class Machines:
    """Agents, real ones, started with nothing but what their instance's ``user_data`` says."""

    def __init__(self, aws: LocalAws, directory: Path) -> None:
        self._aws, self._directory = aws, directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def boot(self, hostname: str, instance_id: str) -> None:
        """Starts the agent of an instance."""
        told = await read_user_data(self._aws, instance_id)
        assert told["hostname"] == hostname
        home = self._directory / hostname / "home"
        home.mkdir(parents=True)
        with (home.parent / "agent.log").open("wb") as log:
            self._processes[hostname] = subprocess.Popen(
                [sys.executable, "-m", "agent", "--hostname", hostname, "--home", str(home)],
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": str(home.parent),
                    "LABLINK_SERVER_URL": told["server_url"],
                    "LABLINK_ENROLMENT_TOKEN": told["enrolment_token"],
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def end(self, hostname: str) -> None:
        """An instance that was terminated runs nothing any more."""
        process = self._processes.pop(hostname)
        process.kill()
        process.wait()

    async def close(self) -> None:
        """Ends all, and removes what sessions left."""
        for hostname in list(self._processes):
            self.end(hostname)
        for home in self._directory.glob("*/home"):
            await asyncio.to_thread(leftovers.main, ["remove", str(home)])
