from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.provisioning.local_vms import LocalVms
from backend.provisioning.priority import NICENESS
from backend.provisioning.providers.local import LocalProvider
from backend.settings import load_settings
from tests.agent.tiny_server import ENROLMENT_TOKEN, TinyServer
from tests.harness.waiting import until


@pytest.fixture
def server() -> Iterator[TinyServer]:
    tiny = TinyServer()
    yield tiny
    tiny.close()


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[LocalVms]:
    made = LocalVms(tmp_path / "home" / "vms")
    yield made
    for hostname in made.list_existing():
        made.stop(hostname)


def start(vms: LocalVms, server: TinyServer, hostname: str = "lab-001", **options: str) -> int:
    return vms.start(hostname, server_url=server.url, token=ENROLMENT_TOKEN, options=options)


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def boots(server: TinyServer, count: int) -> list[str]:
    """Waits for so many announcements; returns their boot ids."""
    await until(lambda: len(server.of("/api/vm_startup")) >= count, every_s=0.01)
    return [each.body["boot_id"] for each in server.of("/api/vm_startup")]


async def test_starting_a_vm_twice_or_many_times_at_once_is_one_process(vms: LocalVms, server: TinyServer) -> None:
    pids = await asyncio.gather(*(asyncio.to_thread(start, vms, server) for _ in range(5)))
    assert set(pids) == {vms.list_running()["lab-001"]}
    assert start(vms, server) == pids[0]
    assert len(await boots(server, 1)) == 1
    assert psutil.Process(pids[0]).nice() == max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))


async def test_a_vm_that_was_off_is_the_same_machine_in_a_new_boot(vms: LocalVms, server: TinyServer) -> None:
    first = start(vms, server)
    await until(server.beats, every_s=0.01)
    vms.power_off("lab-001")
    assert not is_running(first)
    assert server.beats()[-1]["phase"] == "stopping"
    assert vms.list_existing() == ["lab-001"]
    written = (vms.root / "lab-001" / "agent.log").read_text().splitlines()
    assert {json.loads(line)["level"] for line in written} == {"info"}

    second = vms.power_on("lab-001")
    assert second != first
    assert vms.power_on("lab-001") == second
    former, present = await boots(server, 2)
    assert former != present
    assert server.of("/api/vm_startup")[1].token == server.agent_tokens[0] == "agent-token-number-1"


async def test_a_vm_ends_with_everything_that_ran_on_it(vms: LocalVms, server: TinyServer, tmp_path: Path) -> None:
    noted, script = tmp_path / "pid", tmp_path / "startup.sh"
    # A service that the startup script leaves behind, in a session of its own.
    script.write_text(f"setsid sleep 600 > /dev/null 2>&1 & echo $! > {noted}.new; mv {noted}.new {noted}")
    agent = start(vms, server, LABLINK_STARTUP_SCRIPT_FILE=str(script))
    await until(noted.exists, every_s=0.01)
    home = vms.root / "lab-001" / "home" / "sessions" / "1" / "home"
    session = subprocess.Popen([sys.executable, "-c", "input()"], env={"HOME": str(home)}, stdin=subprocess.PIPE)
    other = subprocess.Popen([sys.executable, "-c", "input()"], env={"HOME": f"{vms.root}/lab"}, stdin=subprocess.PIPE)
    try:
        vms.stop("lab-001")
        assert not any(map(is_running, (agent, int(noted.read_text()), session.pid)))
        assert is_running(other.pid)
        assert vms.list_existing() == []
        assert vms.list_running() == {}
        vms.stop("lab-001")
    finally:
        for process in (session, other):
            process.kill()
            process.communicate()


async def test_starts_and_stops_at_once_leave_no_process_without_its_directory(
    vms: LocalVms, server: TinyServer
) -> None:
    async def disturb(number: int) -> None:
        await asyncio.to_thread(vms.stop if number % 2 else lambda name: start(vms, server, name), "lab-001")

    await asyncio.gather(*(disturb(number) for number in range(8)))
    if vms.list_running():
        assert (vms.root / "lab-001" / "vm.json").exists()
    vms.stop("lab-001")
    assert vms.list_running() == {}


def test_a_vm_whose_directory_was_taken_away_by_hand_can_be_stopped(vms: LocalVms, server: TinyServer) -> None:
    pid = start(vms, server)
    (vms.root / "lab-001").rename(vms.root.parent / "elsewhere")
    vms.stop("lab-001")
    assert not is_running(pid)
    assert vms.list_existing() == []


def test_a_vm_that_is_not_there_can_be_stopped_but_not_switched_on(vms: LocalVms) -> None:
    vms.stop("lab-001")
    vms.power_off("lab-001")
    assert vms.power_on("lab-001") is None
    assert not vms.root.exists()


@pytest.mark.parametrize("name", ["../lab", "/etc", "", ".", "a/b", "A", "a\n", "-a", "a" * 64, "a b"])
def test_a_name_that_is_no_hostname_reaches_no_file(vms: LocalVms, name: str) -> None:
    vms.root.mkdir(parents=True)
    for act in (vms.stop, vms.power_off, vms.power_on):
        with pytest.raises(ValueError, match="not a hostname"):
            act(name)
    with pytest.raises(ValueError, match="not a hostname"):
        vms.start(name, server_url="http://127.0.0.1:9", token=None, options={})
    assert list(vms.root.parent.rglob("*")) == [vms.root]


async def test_what_lies_about_beside_the_vms_is_no_stranger(tmp_path: Path, server: TinyServer) -> None:
    settings = load_settings([], environment={"LABLINK_HOME": str(tmp_path / "home")})
    vms = LocalVms(settings.home / "vms")
    (vms.root / "Not A Vm").mkdir(parents=True)
    (vms.root / ".DS_Store").write_text("of a file manager")
    for name in ("known-001", "stranger-001"):
        start(vms, server, name)
    assert await LocalProvider(settings).remove_strangers({"known-001"}) == ["stranger-001"]
    assert set(vms.list_running()) == {"known-001"}
    vms.stop("known-001")


async def test_a_reboot_shows_the_vm_none_of_the_servers_secrets(
    tmp_path: Path, vms: LocalVms, server: TinyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABLINK_ADMIN_PASSWORD", "a secret of the server")
    first = start(vms, server)
    await until(server.beats, every_s=0.01)
    settings = load_settings([], environment={"LABLINK_HOME": str(tmp_path / "home")})
    await LocalProvider(settings).reboot("lab-001")
    pid = vms.list_running()["lab-001"]
    assert pid != first
    assert "a secret of the server" not in psutil.Process(pid).environ().values()
    assert len(set(await boots(server, 2))) == 2
