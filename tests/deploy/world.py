"""`lablink deploy` as people type it, against a local AWS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.local_aws import AMI_PARAMETER, LocalAws
from tests.harness.server import LABLINK

# By which its calls are told from the tests' own.
KEY = "deployer"
ROOT = Path(__file__).parents[2]
VARIABLES = (
    "domain=lab.example.org",
    "image=ghcr.io/example/lablink-allocator",
    "image_tag=1.2.3",
    "owner=ada@example.org",
    f"ami={AMI_PARAMETER}",
    "settings={pool.default.max: 7}",
)
# The local AWS has one address: buckets cannot be names in front of it.
PROVIDER = 'provider "aws" {\n  s3_use_path_style = true\n}\n'
BACKEND = 'terraform {\n  backend "s3" {\n    use_path_style = true\n  }\n}\n'
# Terraform asks about it ten times in a minute before it believes that it is there.
WITHOUT_LIFECYCLE = 'resource "aws_s3_bucket_lifecycle_configuration" "backup" {\n  count = 0\n}\n'


class Deployer:
    """Somebody with a shell, a data directory and the account's credentials; ``override``: what is otherwise there."""

    def __init__(self, aws: LocalAws, home: Path, *, override: str = "") -> None:
        self.home, self._override = home, override
        self._environment = {**aws.terraform_environment, "LABLINK_HOME": str(home), "AWS_ACCESS_KEY_ID": KEY}

    async def deploy(self, verb: str, environment: str, *arguments: str, typed: str = "") -> tuple[int, str]:
        """Runs it; returns the status and all that it said."""
        self._name_the_address(environment)
        return await self._run(LABLINK, "deploy", verb, environment, *VARIABLES, *arguments, typed=typed)

    async def make(self, verb: str, environment: str, **more: str) -> tuple[int, str]:
        """The same as pipelines do it: by a target of the Makefile, told by its environment."""
        self._name_the_address(environment)
        file = self.home / "variables.yaml"
        tagless = [one for one in VARIABLES if not one.startswith("image_tag=")]
        file.write_text("".join(f"{one.replace('=', ': ', 1)}\n" for one in tagless))
        told = {"ENVIRONMENT": environment, "FILE": str(file), "IMAGE_TAG": "1.2.3", **more}
        # What is installed already stays as it is.
        return await self._run("make", "--silent", "--old-file=.venv/server.stamp", f"deploy-{verb}", more=told)

    async def _run(
        self, *command: str | Path, typed: str = "", more: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=ROOT,
            env={**self._environment, **(more or {})},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate(typed.encode())
        return process.returncode or 0, said.decode()

    async def plan(self, environment: str, *arguments: str) -> dict[str, Any]:
        """The plan as JSON."""
        file = self.home / f"plan-{environment}.json"
        status, said = await self.deploy("plan", environment, "--json", str(file), *arguments)
        assert status == 0, said
        loaded: dict[str, Any] = json.loads(file.read_text())
        return loaded

    def _name_the_address(self, environment: str) -> None:
        directory = self.home / "deploy" / environment
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "test_override.tf").write_text(
            PROVIDER + (BACKEND if environment != "dev" else "") + self._override
        )
