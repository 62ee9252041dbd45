"""Real agents in processes of their own, before a tiny server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import leftovers
from tests.agent.tiny_server import ENROLMENT_TOKEN, TinyServer
from tests.harness.waiting import until

KEPT = ("PATH", "HOME", "LANG")


class AgentProcess:
    """One machine's agent; it can be started again on the same data."""

    def __init__(self, home: Path, server_url: str, **environment: str) -> None:
        self.home = home
        self._server_url = server_url
        self._environment = {"LABLINK_ENROLMENT_TOKEN": ENROLMENT_TOKEN, **environment}
        self._log = home.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str, **environment: str) -> AgentProcess:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--hostname", "gpu-01", "--home", str(self.home), *flags],
                env={**kept, "LABLINK_SERVER_URL": self._server_url, **self._environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    @property
    def said(self) -> str:
        """All that it has written to its terminal."""
        return self._log.read_text(encoding="utf-8")

    async def ended(self, within_s: float = 8) -> int:
        """Waits for its end; returns the exit status."""
        assert self.process is not None
        process = self.process
        await until(lambda: process.poll() is not None, within_s=within_s, every_s=0.01, what="the agent ends")
        return int(process.returncode)

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server() -> Iterator[TinyServer]:
    tiny = TinyServer()
    yield tiny
    tiny.close()


@pytest.fixture
def make_agent(tmp_path: Path, server: TinyServer) -> Iterator[Callable[..., AgentProcess]]:
    """Makes agents (not yet started), each with a data directory of its own."""
    agents: list[AgentProcess] = []

    def make(server_url: str | None = None, **environment: str) -> AgentProcess:
        agents.append(AgentProcess(tmp_path / f"agent{len(agents)}", server_url or server.url, **environment))
        return agents[-1]

    yield make
    for agent in agents:
        agent.kill()
        if (agent.home / "sessions").is_dir():
            leftovers.main(["remove", str(agent.home)])
