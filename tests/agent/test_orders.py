"""Commands: each is done once, however often it is delivered, and told until it is heard."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from agent.commands import CommandFailed, execute
from agent.removal import end_session
from agent.session import find_session, list_sessions
from agent.store import JOURNAL_LENGTH, Store
from agent.terminals import Terminals
from backend.logs import JsonFormatter
from tests.agent.tiny_server import Fault, TinyServer
from tests.harness.waiting import until


async def test_a_command_delivered_twice_is_done_once_and_told_twice(server: TinyServer, make_agent) -> None:
    agent = make_agent().start()
    server.faults["/api/commands/7"] = Fault(500)
    server.command(7, "prepare_session", claim_id=3, request_id="proxy-4bf92f35")
    await until(lambda: len(server.results(7)) == 2, every_s=0.01)
    first, second = server.results(7)
    assert first == second == {"status": "succeeded", "detail": "the session is ready", "data": {}}
    assert agent.said.count("command 7 (prepare_session): the session is ready [proxy-4bf92f35]") == 1
    session = find_session(Store(agent.home), 3, "gpu-01")
    assert session is not None
    assert session.tmp.is_dir()

    # Nor is it done again by a later life of the agent: what is gone meanwhile stays gone.
    agent.kill()
    end_session(Store(agent.home), 3, "gpu-01")
    server.command(7, "prepare_session", claim_id=3)
    agent.start()
    await until(lambda: len(server.results(7)) == 3, every_s=0.01)
    assert server.results(7)[2] == first
    assert list_sessions(Store(agent.home)) == []


async def test_a_log_for_machines_has_the_servers_names_and_the_id_of_the_request(
    server: TinyServer, make_agent
) -> None:
    agent = make_agent(LABLINK_LOG_FORMAT="json").start()
    server.command(1, "prepare_session", claim_id=3, request_id="proxy-4bf92f35")
    server.command(2, "prepare_session", claim_id=4, request_id="nothing that goes\r\ninto a header")
    await until(lambda: server.results(1) and server.results(2), every_s=0.01)
    lines = [json.loads(line) for line in agent.said.splitlines()]
    (mine,) = [line for line in lines if "request_id" in line]
    assert (mine["request_id"], mine["message"]) == (
        "proxy-4bf92f35",
        "command 1 (prepare_session): the session is ready",
    )
    record = logging.makeLogRecord({"msg": "x"})
    assert all(set(line) == set(json.loads(JsonFormatter().format(record))) for line in lines if line is not mine)
    # The server's own line about the result bears it too.
    assert [each.request_id for number in (1, 2) for each in server.of(f"/api/commands/{number}")] == [
        "proxy-4bf92f35",
        None,
    ]


async def test_an_unknown_command_and_one_without_a_claim_fail_with_a_reason(server: TinyServer, make_agent) -> None:
    make_agent().start()
    server.command(1, "dance")
    server.command(2, "prepare_session", claim_id="../../etc")
    await until(lambda: server.results(1) and server.results(2), every_s=0.01)
    assert server.results(1)[0]["status"] == server.results(2)[0]["status"] == "failed"
    assert "unknown command kind 'dance': this agent is version" in server.results(1)[0]["detail"]
    assert server.results(2)[0]["detail"] == "the command names no claim"


async def test_a_result_that_is_refused_leads_to_a_pause_and_keeps_no_other_command_waiting(
    server: TinyServer, make_agent
) -> None:
    server.faults["/api/commands/1"] = Fault(422, times=3)
    server.command(1, "prepare_session", claim_id=1)
    server.command(2, "prepare_session", claim_id=2)
    make_agent().start()
    await until(lambda: len(server.results(1)) >= 2, every_s=0.01)
    assert server.results(2)
    first, second = server.of("/api/commands/1")[:2]
    assert second.at - first.at > 0.4


async def test_a_machine_that_shall_leave_ends_its_agent(server: TinyServer, make_agent) -> None:
    agent = make_agent().start()
    server.command(1, "stop")
    assert await agent.ended() == 0
    assert server.results(1)[0]["status"] == "succeeded"
    assert server.beats()[-1]["phase"] == "stopping"


@pytest.mark.parametrize("acts", [False, True])
async def test_a_reboot_happens_once_though_nobody_heard_of_it(
    server: TinyServer, make_agent, tmp_path: Path, acts: bool
) -> None:
    done = tmp_path / "rebooted"
    agent = make_agent(LABLINK_REBOOT_COMMAND=f"touch {done}").start()
    # The result is lost on its way, or the server's answer to it: the agent cannot know.
    server.faults["/api/commands/4"] = Fault(503, acts=acts)
    server.command(4, "reboot")
    assert await agent.ended() == 75
    assert done.exists()

    done.unlink()
    beats = len(server.beats())
    agent.start()
    await until(lambda: len(server.beats()) > beats + 2 and not server.commands, every_s=0.01)
    assert len(server.results(4)) == (1 if acts else 2)
    assert agent.process.poll() is None
    assert not done.exists()


async def test_a_reboot_command_that_fails_is_said_and_the_agent_boots_all_the_same(server, make_agent) -> None:
    agent = make_agent(LABLINK_REBOOT_COMMAND="/nonexistent/reboot now").start()
    server.command(1, "reboot")
    assert await agent.ended() == 75
    assert "the reboot command failed" in agent.said


def test_a_session_that_cannot_be_made_fails_with_a_reason(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    (store.home / "sessions").write_text("a file where a directory belongs")
    with pytest.raises(CommandFailed, match=r"File exists|Not a directory"):
        execute(
            store, "gpu-01", "prepare_session", {"claim_id": 1}, terminals=Terminals(store, "http://127.0.0.1:1", None)
        )


def test_the_journal_keeps_the_newest_results_and_survives_being_damaged(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    for number in range(1, JOURNAL_LENGTH + 6):
        store.keep_result(number, {"status": "succeeded", "detail": str(number), "data": {}})
    again = Store(tmp_path / "home")
    assert again.find_result(5) is None
    assert again.find_result(6) == {"status": "succeeded", "detail": "6", "data": {}}
    (store.home / "commands.json").write_text("{half")
    assert again.find_result(6) is None


async def test_a_restart_prepares_the_machine_anew_and_where_nothing_can_be_restarted_it_says_so(
    server: TinyServer, make_agent, tmp_path: Path
) -> None:
    script, gate = tmp_path / "startup.sh", tmp_path / "gate"
    script.write_text(f"test -e {gate}")
    make_agent(LABLINK_STARTUP_SCRIPT_FILE=str(script)).start()
    await until(lambda: any("startup script" in str(beat["reasons"]) for beat in server.beats()), every_s=0.01)
    server.command(1, "restart")
    await until(lambda: server.results(1), every_s=0.01)
    assert server.results(1)[0]["status"] == "failed"
    gate.touch()
    server.command(2, "restart")
    await until(lambda: server.results(2) and server.beats()[-1]["phase"] == "ready", every_s=0.01)
    assert server.results(2)[0]["detail"] == "the workload was restarted"
    await until(lambda: "startup script" not in str(server.beats()[-1]["reasons"]), every_s=0.01)
    server.command(3, "restart")
    await until(lambda: server.results(3), every_s=0.01)
    assert server.results(3)[0]["detail"] == "this machine has no workload that could be restarted"
