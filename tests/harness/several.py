"""Several servers with one Postgres behind the HAProxy that the documentation hands out."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import Database
from backend.services.actor import Actor
from backend.services.pools import PoolSpec, ensure_pool
from tests.harness.server import Server
from tests.harness.waiting import until

CONFIGURATION = Path(__file__).parents[2] / "docs" / "haproxy.cfg"
COOKIE = "lablink-server"


class Balancer(Server):
    """The proxy, with only addresses put in; to clients it is a server like any other."""

    def spawn(self) -> None:
        """Starts it and returns at once."""
        program = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin")
        assert program, "HAProxy is missing: python -m tests.ensure_tools"
        written = self.log.with_suffix(".cfg")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([program, "-db", "-f", written], stdout=log, stderr=log)

    def configure(self, servers: dict[str, Server]) -> None:
        """Puts the addresses in."""
        text = CONFIGURATION.read_text()
        for address, port in zip(
            ("8080", "8081", "8082"), (self.port, *(s.port for s in servers.values())), strict=True
        ):
            assert f"127.0.0.1:{address}" in text
            text = text.replace(f"127.0.0.1:{address}", f"127.0.0.1:{port}")
        self.log.with_suffix(".cfg").write_text(text)


class Twofold(Server):
    """Two servers where a test asks for one: its ``url`` is the balancer's, and a crash is that of one of the two."""

    def __init__(self, home: Path, *settings: str, **options: Any) -> None:
        super().__init__(home, *settings, **options)
        self._embedded = EmbeddedPostgres(home)
        self._balancer = Balancer(home)
        self._balancer.log = home.parent / f"{home.name}-balancer.log"
        self.port, self.url, self.api = self._balancer.port, self._balancer.url, self._balancer.api
        settings = (f"server.public_url={self.url}", "server.trusted_proxies=[127.0.0.1]", *settings)
        self._parts = {name: Server(home, *settings, **options) for name in ("one", "two")}
        for name, part in self._parts.items():
            part.log = home.parent / f"{home.name}-{name}.log"
        self._balancer.configure(self._parts)

    async def start(self) -> Server:
        """Starts whatever does not run."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        url = await self._embedded.start()
        for each in (*self._parts.values(), self._balancer):
            each._database_url = url
            if each.process is None or each.process.poll() is not None:
                each.spawn()
        for each in (*self._parts.values(), self._balancer):
            await each.ready()
        self.process = self._parts["one"].process
        return self

    def kill(self) -> None:
        """SIGKILL to one of the two; the other goes on."""
        self._parts["one"].kill()

    async def stop(self, within_s: float = 30) -> int:
        """SIGTERM to both; returns the greater exit status."""
        return max([await part.stop(within_s) for part in self._parts.values()])

    async def close(self) -> None:
        """Ends everything."""
        for each in (self._balancer, *self._parts.values()):
            if each.process is not None and each.process.poll() is None:
                each.kill()
        for part in self._parts.values():
            await part.api.aclose()
        await super().close()


class Lab:
    """Two servers that share a data directory, a worker apart, and the balancer; ``url`` is their database."""

    def __init__(self, directory: Path, url: str) -> None:
        home = directory / "home"
        self.url = url
        self.balancer = Balancer(home)
        self.balancer.log = directory / "balancer.log"
        settings = (
            f"server.public_url={self.balancer.url}",
            "server.trusted_proxies=[127.0.0.1]",
            "server.drain_s=4",
            "jobs.in_process=false",
        )
        self.servers = {name: Server(home, *settings, database_url=url) for name in ("one", "two")}
        self.worker = Server(home, *settings, database_url=url, verb="worker")
        for name, server in {**self.servers, "worker": self.worker}.items():
            server.log = directory / f"{name}.log"
        self.balancer.configure(self.servers)

    @property
    def all(self) -> list[Server]:
        return [self.balancer, self.worker, *self.servers.values()]

    async def start(self) -> None:
        """Starts all at once, on an empty data directory."""
        for each in self.all:
            each.spawn()
        for server in (*self.servers.values(), self.balancer):
            await server.ready()
        await until(self._works_on_jobs, within_s=60, what="the worker works on jobs")
        for name in self.servers:
            await self.is_served_by(name)

    def _works_on_jobs(self) -> bool:
        return "working on jobs" in self.worker.log.read_text()

    async def close(self) -> None:
        """Ends all that was ever started."""
        for each in self.all:
            await each.close()

    def other(self, name: str) -> Server:
        """The other one."""
        return next(server for each, server in self.servers.items() if each != name)

    async def leader(self) -> str:
        """Who sweeps for all."""

        async def find() -> str | None:
            leaders = []
            for name, server in self.servers.items():
                if server.process is not None and server.process.poll() is None:
                    answer = await server.api.get("/readyz")
                    leaders += [name] if answer.json()["leads"] else []
            assert len(leaders) < 2, leaders
            return leaders[0] if leaders else None

        return await until(find, what="one leads")

    async def is_served_by(self, name: str) -> None:
        """Waits until the balancer sends people there (again)."""

        async def is_sent() -> bool:
            async with self.balancer.client(verify=False) as somebody:
                answer = await somebody.get("/healthz")
                return answer.status_code == 200 and answer.cookies.get(COOKIE) == name

        await until(is_sent, every_s=0.1, what=f"the balancer sends people to {name}")

    async def make_pool(self, name: str, **figures: object) -> str:
        """Ensures a pool; returns its name."""
        async with self.database() as db:
            await ensure_pool(db, name, PoolSpec(**figures), actor=Actor.admin("test"))  # type: ignore[arg-type]
        return name

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The services' way to their database."""
        db = Database(self.url, pool_size=4)
        yield db
        await db.close()


@asynccontextmanager
async def meanwhile(*works: object) -> AsyncIterator[None]:
    """Runs these coroutines beside the block; what one of them raises fails the block at its end."""
    tasks = [asyncio.ensure_future(work) for work in works]  # type: ignore[arg-type]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result
