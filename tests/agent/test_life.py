from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import psutil
import pytest

from tests.agent.tiny_server import ENROLMENT_TOKEN, Fault, TinyServer
from tests.harness.server import free_port
from tests.harness.waiting import until

READY = ("ready", "healthy")


def is_ready(server: TinyServer, *, since: int = 0) -> bool:
    """Whether a heartbeat after the first ``since`` said that all is well."""
    return any((beat["phase"], beat["health"]) == READY for beat in server.beats()[since:])


async def test_an_agent_enrols_once_and_keeps_its_token_for_itself(server: TinyServer, make_agent) -> None:
    began = time.monotonic()
    agent = make_agent(LABLINK_BOOT_ID="boot-1").start()
    await until(lambda: is_ready(server), every_s=0.01)
    took_s, rss = time.monotonic() - began, psutil.Process(agent.process.pid).memory_info().rss
    print(f"an agent is ready after {took_s:.2f} s and takes {rss / 2**20:.0f} MiB")

    (announced,) = server.of("/api/vm_startup")
    assert announced.token == ENROLMENT_TOKEN
    assert announced.body == {
        "hostname": "gpu-01",
        "boot_id": "boot-1",
        "agent_version": announced.body["agent_version"],
    }
    (token,) = server.agent_tokens
    assert {each.token for each in server.requests} == {ENROLMENT_TOKEN, token}
    token_file = agent.home / "agent.token"
    assert token_file.read_text() == token
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(agent.home.stat().st_mode) == 0o700

    beat = server.beats()[0]
    assert beat["boot_id"] == "boot-1"
    assert beat["reasons"] == []
    assert all(0 <= beat[figure] <= 100 for figure in ("cpu_pct", "memory_pct", "disk_free_pct"))


async def test_being_told_to_stop_ends_it_cleanly_and_the_server_hears_of_it(server: TinyServer, make_agent) -> None:
    agent = make_agent().start()
    await until(lambda: is_ready(server), every_s=0.01)
    assert await agent.stop() == 0
    assert server.beats()[-1]["phase"] == "stopping"
    assert any("agent ends" in line for line in server.logs()["agent"])
    said = agent.said + str(server.logs())
    assert ENROLMENT_TOKEN not in said
    assert server.agent_tokens[0] not in said


async def test_a_restart_announces_the_boot_with_the_token_it_has(server: TinyServer, make_agent) -> None:
    agent = make_agent(LABLINK_BOOT_ID="boot-1").start()
    await until(lambda: is_ready(server), every_s=0.01)
    agent.kill()
    since = len(server.beats())
    agent.start(LABLINK_BOOT_ID="boot-2", LABLINK_ENROLMENT_TOKEN="")
    await until(lambda: is_ready(server, since=since), every_s=0.01)
    first, second = server.of("/api/vm_startup")
    assert (first.token, second.token) == (ENROLMENT_TOKEN, server.agent_tokens[0])
    assert second.body["boot_id"] == "boot-2"
    assert server.agent_tokens == ["agent-token-number-1"]


async def test_a_token_that_died_before_its_first_heartbeat_is_asked_for_again(server: TinyServer, make_agent) -> None:
    agent = make_agent()
    agent.home.mkdir()
    (agent.home / "agent.token").write_text("a token that was replaced meanwhile")
    (agent.home / "commands.json").write_text('{"1": {"status": "succeeded", "detail": "of another life", "data": {}}}')
    agent.start()
    await until(lambda: is_ready(server), every_s=0.01)
    assert [each.token for each in server.of("/api/vm_startup")] == [
        "a token that was replaced meanwhile",
        ENROLMENT_TOKEN,
    ]
    assert (agent.home / "agent.token").read_text() == "agent-token-number-1"
    # Another enrolment is another machine for the server: its commands count from one again.
    server.command(1, "prepare_session", claim_id=5)
    await until(lambda: server.results(1), every_s=0.01)
    assert (agent.home / "sessions" / "5").is_dir()


async def test_without_any_token_it_says_so_waits_and_can_be_stopped(server: TinyServer, make_agent) -> None:
    agent = make_agent(LABLINK_ENROLMENT_TOKEN="").start()
    await until(lambda: "there is no token: set LABLINK_ENROLMENT_TOKEN or --enrolment-token-file" in agent.said)
    assert agent.process.poll() is None
    assert await agent.stop() == 0
    assert server.requests == []


async def test_a_server_that_comes_later_is_found(make_agent) -> None:
    port = free_port()
    agent = make_agent(f"http://127.0.0.1:{port}").start()
    await until(lambda: "the server does not answer" in agent.said, every_s=0.01)
    late = TinyServer(port)
    try:
        await until(lambda: is_ready(late), every_s=0.01)
    finally:
        late.close()


async def test_a_servers_wish_to_be_left_alone_is_honoured(server: TinyServer, make_agent) -> None:
    server.faults["/api/vm_startup"] = Fault(503, headers={"Retry-After": "1"})
    make_agent().start()
    await until(lambda: is_ready(server), every_s=0.01)
    first, second = server.of("/api/vm_startup")
    assert second.at - first.at >= 1


@pytest.mark.parametrize("status", [500, 401])
async def test_a_heartbeat_that_is_not_taken_is_sent_again(server: TinyServer, make_agent, status: int) -> None:
    agent = make_agent().start()
    await until(lambda: is_ready(server), every_s=0.01)
    server.faults["/api/heartbeat"] = Fault(status)
    await until(lambda: server.faults["/api/heartbeat"].times == 0, every_s=0.01)
    since = len(server.beats())
    await until(lambda: is_ready(server, since=since), every_s=0.01)
    assert agent.process.poll() is None


async def test_an_answer_without_a_token_is_no_enrolment(server: TinyServer, make_agent) -> None:
    server.faults["/api/vm_startup"] = Fault(200, body=b"{}")
    agent = make_agent().start()
    await until(lambda: is_ready(server), every_s=0.01)
    assert (agent.home / "agent.token").read_text() == "agent-token-number-1"


def test_a_signal_in_the_middle_of_the_agents_own_locks_is_heard_all_the_same(tmp_path) -> None:
    script = f"""
import os, signal, threading
from agent.config import parse
from agent.main import Agent, _stop_on_signals

agent = Agent(parse(["--server", "http://127.0.0.1:1", "--hostname", "gpu-01", "--home", {str(tmp_path / "home")!r}]))
_stop_on_signals(agent)
with agent._stopping._cond, agent._beat_now._cond:
    os.kill(os.getpid(), signal.SIGTERM)
assert agent._stopping.wait(5) and agent._beat_now.wait(5)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20, env={**os.environ})


def test_the_agent_needs_none_of_the_servers_packages() -> None:
    script = """
import sys
import agent.main
found = {"backend", "lablink_ui", "nicegui", "sqlalchemy", "fastapi", "pydantic", "psycopg", "hydra"} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=20)
