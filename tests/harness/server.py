"""A real LabLink server in a process of its own, as `lablink demo` or `lablink serve` starts it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil

from agent import leftovers
from backend.db.embedded import EmbeddedPostgres
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.process import end_leftover
from tests.harness import prepared, warm_start
from tests.harness.waiting import until

PASSWORD = "a password for tests"
API_TOKEN = "a-token-for-tests-of-more-than-24"
LABLINK = Path(sys.executable).parent / "lablink"
COMMAND = (str(LABLINK),)
FIGURE = re.compile(r"^(\w+) ([0-9.eE+-]+)$", re.MULTILINE)
FAST = ("agent.heartbeat_interval_s=2",)
# Reading the system's certificates takes 20 ms, for each client again, and none of them speaks TLS.
TLS = ssl.create_default_context()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """Starts, stops and kills one server; its data outlives it until ``close``.

    ``program``: what runs it, the command itself or that as another user; by default a process that has imported it.
    ``module``: whose ``main`` that process runs, in place of the command's.
    ``is_first``: on an empty directory, whose database is yet to be made.
    """

    def __init__(
        self,
        home: Path,
        *settings: str,
        verb: str = "serve",
        database_url: str | None = None,
        environment: dict[str, str] | None = None,
        program: Sequence[str] = (),
        module: str = warm_start.COMMAND,
        is_first: bool = False,
    ) -> None:
        self.home, self.port, self._verb = home, free_port(), verb
        self._settings = (*FAST, *settings)
        self._database_url = database_url
        self._environment = environment or {}
        self._program, self._module, self._is_first = program, module, is_first
        self.process: subprocess.Popen[bytes] | warm_start.Forked | None = None
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = home.parent / f"{home.name}.log"
        self.api = self.client(token=API_TOKEN)
        self.vms = LocalVms(home / "vms")

    def client(self, *, token: str | None = None, **options: Any) -> httpx.AsyncClient:
        """A client of this server; loopback only, whatever proxies are set."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        limits = httpx.Limits(max_connections=400, max_keepalive_connections=400)
        options = {"headers": headers, "limits": limits, "trust_env": False, "verify": TLS, "timeout": 60, **options}
        return httpx.AsyncClient(base_url=self.url, **options)

    async def start(self) -> Server:
        """Starts it and waits until it is ready."""
        self.spawn()
        await self.ready()
        return self

    def spawn(self) -> None:
        """Starts it and returns at once."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LABLINK_")}
        environment |= {
            "LABLINK_HOME": str(self.home),
            "LABLINK_ADMIN_PASSWORD": PASSWORD,
            "LABLINK_API_TOKEN": API_TOKEN,
            **self._environment,
        }
        if self._database_url:
            environment["LABLINK_DATABASE_URL"] = self._database_url
        arguments = [self._verb, f"server.port={self.port}", *self._settings]
        if not (self._database_url or self._is_first):
            prepared.prepare(self.home, PASSWORD)
        if not self._program:
            self.process = warm_start.start(arguments, environment, self.log, self._module)
            return
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._program, *arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def ready(self, within_s: float = 60) -> None:
        """Waits until pages can be served."""

        process = self.process
        assert process is not None

        async def is_ready() -> bool:
            return process.poll() is not None or (await self.api.get("/readyz")).status_code == 200

        await until(is_ready, within_s=within_s, what="the server is ready")
        assert process.poll() is None, f"the server ended: {self.log.read_text()[-3000:]}"

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def stop(self, within_s: float = 30) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        process = self.process
        await until(lambda: process.poll() is not None, within_s=within_s, what="the server ends")
        return int(process.returncode)

    async def close(self) -> None:
        """Ends everything that this server ever started."""
        await self.api.aclose()
        if self.process is not None and self.process.poll() is None:
            self.kill()
        for directory in (self.home / "pools").glob("*"):
            await end_leftover(directory, grace_s=2)
        for pid in self.vms.list_running().values():
            psutil.Process(pid).kill()
        for agent_home in (self.home / "vms").glob("*/home"):
            await asyncio.to_thread(leftovers.main, ["remove", str(agent_home)])
        if not self._database_url and (self.home / "postgres").exists():
            embedded = EmbeddedPostgres(self.home)
            await embedded.start()
            await embedded.stop()

    def count_begun(self) -> int:
        """How many machines were ever begun here: cheap to ask again and again, unlike what runs."""
        return sum((machine / "agent.log").exists() for machine in (self.home / "vms").glob("[!.]*"))

    async def figures(self) -> dict[str, float]:
        """What `/metrics` says of the server itself, by name; it needs ``server.metrics=true``."""
        answer = await self.api.get("/metrics")
        assert answer.status_code == 200, answer.text
        return {name: float(value) for name, value in FIGURE.findall(answer.text)}

    async def list_vms(self) -> dict[str, dict[str, Any]]:
        """All VMs by hostname, by API."""
        answer = await self.api.get("/api/admin/instances")
        assert answer.status_code == 200, answer.text
        return {vm["hostname"]: vm for vm in answer.json()["instances"]}

    async def launch(self, count: int, pool: str = "default") -> tuple[int, list[str]]:
        """Launches by API; returns the operation's id and the hostnames."""
        answer = await self.api.post("/api/admin/create", json={"pool": pool, "count": count})
        assert answer.status_code == 202, answer.text
        return answer.json()["operation_id"], answer.json()["hostnames"]

    async def until_status(
        self, hostnames: list[str], *statuses: str, within_s: float = 60
    ) -> dict[str, dict[str, Any]]:
        """Waits until all of these VMs stand at one of these statuses."""

        async def reached() -> dict[str, dict[str, Any]] | None:
            vms = await self.list_vms()
            seen = {name: vms.get(name, {"status": "destroyed", "reason": None}) for name in hostnames}
            others = {name: (vm["status"], vm["reason"]) for name, vm in seen.items() if vm["status"] not in statuses}
            assert not others, others
            return vms

        return await until(reached, within_s=within_s, what=f"{len(hostnames)} VMs {' or '.join(statuses)}")

    async def operation(self, operation_id: int) -> dict[str, Any]:
        """One operation, by API."""
        return (await self.api.get(f"/api/admin/operations/{operation_id}")).json()

    async def until_operation_ends(
        self, operation_id: int, within_s: float = 60, every_s: float = 0.05
    ) -> dict[str, Any]:
        """Waits until an operation has ended."""

        async def ended() -> dict[str, Any] | None:
            operation = await self.operation(operation_id)
            assert operation["status"] not in {"queued", "running"}, operation["status"]
            return operation

        return await until(ended, within_s=within_s, every_s=every_s, what="the operation ends")


async def gather_all(*awaitables: Any) -> list[Any]:
    """All at once; the first exception is raised after all have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results
