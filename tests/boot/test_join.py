"""Machines of one's own: the line that the pool's page makes, run as it stands by root and by somebody who is not,
before a real server; then shown, drained and removed on that page. `systemctl` is the stand-in of `machine.py`.

The server is the real one, of this checkout, but for one file: the hashes in the agent's lock are those of the tests'
own package index (see `package_index.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.agent.tiny_server import TinyServer
from tests.boot.machine import Machine
from tests.harness.package_index import make_index, rehashed
from tests.harness.pages import Visitor, visit
from tests.harness.server import COMMAND, Server
from tests.harness.waiting import until

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "backend", "lablink_ui", "assets", "terraform")


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """The server, whose agent can be installed from the tests' package index."""
    tree = tmp_path_factory.mktemp("tree")
    for name in PACKAGES:
        (tree / name).symlink_to(ROOT / name)
    (tree / "requirements").mkdir()
    (tree / "requirements/agent.txt").write_text(rehashed((ROOT / "requirements/agent.txt").read_text()))
    started = Server(tree / "home", environment={"PYTHONPATH": str(tree)}, program=COMMAND)
    await started.start()
    yield started
    await started.close()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with somebody's account on it, and systemd, as far as anybody can see."""
    index, made = TinyServer(), Machine(tmp_path_factory.mktemp("own"))
    index.files = make_index((ROOT / "requirements/agent.txt").read_text())
    (made.root / "etc/pip.conf").write_text(f"[global]\nindex-url = {index.url}/simple/\n")
    made.power_on()
    (made.root / "run/systemd/system").mkdir(parents=True)
    assert made.run("useradd", "--create-home", "guest").returncode == 0
    yield made
    made.power_off()
    index.close()


@pytest.fixture(scope="module")
async def person(chromium: Browser, server: Server) -> AsyncIterator[Visitor]:
    """An admin at the pool's page."""
    visitor = await (await visit(chromium, server, reduced_motion="reduce")).sign_in()
    await visitor.go("/admin/pools/default")
    yield visitor
    await visitor.context.close()


@pytest.fixture(scope="module")
async def lines(person: Visitor) -> list[str]:
    """Lines to run, from the page."""
    await person.page.get_by_test_id("enrolment-count").fill("3")
    await person.page.get_by_test_id("enrolment-submit").click()
    shown = person.page.get_by_test_id("enrolment-lines")
    await expect(shown).not_to_be_empty()
    return (await shown.inner_text()).split("\n\n")


def run_as_guest(machine: Machine, line: str):
    return machine.run("runuser", "-u", "guest", "--", "bash", "-c", f"cd && {line}", HOME="/home/guest")


async def test_a_wheel_that_is_not_the_one_of_the_line_is_not_run(machine: Machine, lines: list[str]) -> None:
    before, _, after = lines[0].partition("echo '")
    done = run_as_guest(machine, f"{before}echo '{'0' * 64}{after[64:]}")
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert not (machine.root / "home/guest/.lablink-agent").exists()


async def test_root_joins_and_the_agent_is_a_service(machine: Machine, server: Server, lines: list[str]) -> None:
    done = machine.run("bash", "-c", f"cd /root && {lines[0]} --hostname ws-root")
    assert done.returncode == 0, done.stderr
    assert "The agent is a service that starts with this machine" in done.stdout
    await server.until_status(["ws-root"], "available")
    unit = (machine.root / "etc/systemd/system/lablink-agent.service").read_text()
    assert "ConditionPathExists=/opt/lablink/home/agent.token" in unit
    assert "export LABLINK_LOG_FORMAT=json" in (machine.root / "opt/lablink/run.sh").read_text()
    assert (machine.root / "opt/lablink").stat().st_mode & 0o777 == 0o700


async def test_somebody_who_is_not_root_joins_with_a_process(
    machine: Machine, server: Server, lines: list[str]
) -> None:
    done = run_as_guest(machine, f"{lines[1]} --hostname ws-guest")
    assert done.returncode == 0, done.stderr
    assert "It is no service" in done.stdout
    await server.until_status(["ws-guest"], "available")
    agents = machine.run("ps", "-u", "guest", "-o", "args=").stdout
    assert "-m agent --server" in agents
    seen = machine.run("sh", "-c", "cat /proc/[0-9]*/environ")
    assert "LABLINK_ENROLMENT_TOKEN" not in seen.stdout


async def test_a_line_works_once(machine: Machine, lines: list[str]) -> None:
    done = run_as_guest(machine, f"{lines[1]} --hostname ws-again")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "lablink: the server refused this machine: This token is unknown, was used already or has expired."
    )


async def test_a_name_that_is_taken_is_refused_in_words(machine: Machine, lines: list[str]) -> None:
    done = run_as_guest(machine, f"{lines[2]} --hostname ws-root")
    assert done.returncode == 1
    assert "A machine named 'ws-root' exists already" in done.stderr


async def test_the_page_shows_who_joined_drains_one_and_removes_it(
    person: Visitor, server: Server, machine: Machine
) -> None:
    page = person.page
    for name in ("ws-root", "ws-guest"):
        await expect(page.get_by_test_id(f"vm-{name}")).to_have_attribute("data-status", "available")
    await choose(person, "ws-root", "drain")
    await expect(page.get_by_test_id("vm-ws-root")).to_have_attribute("data-status", "quarantined")
    await choose(person, "ws-root", "destroy")
    await choose(person, "ws-guest", "destroy")
    for name in ("ws-root", "ws-guest"):
        await expect(page.get_by_test_id(f"vm-{name}")).to_have_count(0)
    await until(lambda: "-m agent" not in machine.run("ps", "-e", "-o", "args=").stdout, what="the agents end")
    assert "exit status 0" in machine.journal
    for home in ("opt/lablink/home", "home/guest/.lablink-agent/home"):
        assert not (machine.root / home / "agent.token").exists()
    assert person.errors == []


async def choose(person: Visitor, hostname: str, verb: str) -> None:
    """Selects a machine of the table and does something with it."""
    await person.page.get_by_test_id(f"vm-{hostname}").get_by_role("checkbox").check()
    await person.page.get_by_test_id(f"vm-action-{verb}").click()
    await person.page.get_by_test_id("confirm-submit").click()
    # Done, and the selection given up.
    await expect(person.page.get_by_test_id(f"vm-action-{verb}")).to_have_count(0)
