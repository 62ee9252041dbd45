"""A machine, the server that it was made for, and the script that makes it boot."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from backend.provisioning.agent_package import agent_package
from backend.provisioning.boot import Boot, render_user_data
from tests.agent.tiny_server import ENROLMENT_TOKEN, TinyServer
from tests.boot.machine import Machine
from tests.harness.package_index import make_index, rehashed
from tests.harness.waiting import until


class Birth:
    """One machine before one server, and what the server hears of it."""

    def __init__(self, machine: Machine, server: TinyServer) -> None:
        self.machine, self.server = machine, server
        package = agent_package()
        lock = rehashed(package.requirements.decode()).encode()
        self.package = replace(package, requirements=lock, requirements_sha256=sha256(lock).hexdigest())
        server.files = make_index(package.requirements.decode()) | {
            f"/agent/{package.wheel_name}": package.wheel,
            "/agent/requirements.txt": lock,
        }
        (machine.root / "etc/pip.conf").write_text(f"[global]\nindex-url = {server.url}/simple/\n")

    def user_data(self, *, image: str | None = "lab/desk:1", server_url: str | None = None, **package: Any) -> str:
        """The machine's script, made as the server makes it."""
        made_for = replace(self.package, **package)
        return render_user_data(Boot("gpu-01", server_url or self.server.url, ENROLMENT_TOKEN, made_for, image))

    async def until_step(self, name: str, within_s: float = 60) -> dict[str, Any]:
        """Waits for a step to be told; returns the latest of that name."""

        def told() -> dict[str, Any] | None:
            found = [step for step in self.server.steps() if step["step"] == name]
            assert found, self.machine.journal[-2_000:]
            return found[-1]

        return await until(told, within_s=within_s, what=f"the step {name}")

    async def until_phase(self, phase: str, health: str = "healthy") -> dict[str, Any]:
        """Waits for a heartbeat of the agent that has announced itself last; returns it."""

        def beaten() -> dict[str, Any] | None:
            heard = list(self.server.requests)
            announced = max(index for index, each in enumerate(heard) if each.path == "/api/vm_startup")
            last = [each.body for each in heard[announced:] if each.path == "/api/heartbeat"][-1]
            assert (last["phase"], last["health"]) == (phase, health), (last, self.machine.journal[-2_000:])
            return last

        return await until(beaten, within_s=60, what=f"a heartbeat: {phase}, {health}")

    async def until_journal_says(self, words: str) -> None:
        """Waits for words of the unit."""
        await until(lambda: words in self.machine.journal, within_s=60, what=words)

    def forget(self) -> None:
        """What was told so far does not count."""
        self.server.requests.clear()
        (self.machine.root / "var/log/lablink-agent.service.log").write_text("")


@pytest.fixture(scope="module")
def born(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Birth]:
    """A machine that is on, and nothing has run on it. The tests of a module are its life, in their order."""
    server, machine = TinyServer(), Machine(tmp_path_factory.mktemp("machine"))
    machine.power_on()
    yield Birth(machine, server)
    machine.power_off()
    server.close()


@pytest.fixture(scope="module")
def repository(born: Birth) -> str:
    """A git repository on that machine; its address as the machine knows it."""
    work = Path(born.machine.root / "srv/course")
    work.mkdir()
    (work / "lesson.txt").write_text("one")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@lab.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=work, check=True)
    return "file:///srv/course"
