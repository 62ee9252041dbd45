"""`lablink swarm` as it is typed, against a real server and against one that answers errors."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend.services.claims import list_claims
from lablink_ui.cli import main
from lablink_ui.swarm.course import PREFIX
from lablink_ui.swarm.target import Target, WrongTarget, find_target
from tests.harness.pools import database_of, make_pool
from tests.harness.server import API_TOKEN, LABLINK, PASSWORD, Server

SECRETS = {"LABLINK_API_TOKEN": API_TOKEN, "LABLINK_ADMIN_PASSWORD": PASSWORD}
# Everything that can befall somebody, in seconds instead of minutes.
SMALL = """
pool: swarm
agents: 10
arrivals: 15 in 2 s
admin_pages: 2
stay: 3 s
hesitate: 50 to 300 ms
double_clicks: 30 %
reloads: 20 %
returns: 20 %
away: 50 to 300 ms
wifi_losses: 30 %
wifi_off: 50 to 300 ms
gives_back: 30 %
files: false
work: 10 to 50 ms
patience: 1 min
"""
ENDLESS = (
    "pool: swarm\nagents: 4\narrivals: 6 in 100 ms\nhesitate: 50 to 100 ms\nstay: 1 h\nadmin_pages: 0\nfiles: false"
)


async def test_a_small_class_is_well_and_nothing_of_it_stays(shared_server: Server, tmp_path: Path) -> None:
    await make_pool(shared_server, "swarm", max=20)
    run = await start(shared_server.url, tmp_path, SMALL, "--seed", "5")
    said = (await run.communicate())[0].decode()
    assert run.returncode == 0, said
    report = json.loads((tmp_path / "report" / "swarm.json").read_text())
    assert (report["verdict"], report["reasons"]) == ("ok", [])
    assert (report["errors"], report["refused_429"], report["doubles"], report["not_back"]) == (0, 0, 0, 0)
    assert (report["agents"], report["people"]) == (10, 15)
    assert report["seated"] + report["in_line"] == 15
    # Who gives back makes room, so that more sit than there are machines; each of the others was told of the line.
    assert 10 <= report["seated"] <= 10 + report["gave_back"]
    assert report["wifi_losses"] >= 1
    assert report["reloads"] + report["returns"] >= 1
    assert report["heartbeats"] >= 10
    assert report["commands"]["prepare_session"] >= 10
    assert 0 < report["join_to_seat_ms"]["p50"] <= report["join_to_seat_ms"]["p99"]
    # A machine's name is shown before what it takes to get ready.
    assert 0 < report["click_to_machine_ms"]["p50"] < report["click_to_seat_ms"]["p50"]
    assert report["admin_updates"] > 0
    page = (tmp_path / "report" / "swarm.html").read_text()
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace(shared_server.url, "")
    await nothing_stays(shared_server)


@pytest.mark.long
async def test_a_swarm_that_is_told_to_stop_leaves_first(shared_server: Server, tmp_path: Path) -> None:
    await make_pool(shared_server, "swarm", max=20)
    run = await start(shared_server.url, tmp_path, ENDLESS)
    assert run.stdout is not None
    said = b""
    while b"4 sat, 2 in line" not in said:
        said = await asyncio.wait_for(run.stdout.readline(), 60)
        assert said, "it ended"
    machines = [vm for name, vm in (await shared_server.list_vms()).items() if name.startswith(PREFIX)]
    assert [(vm["status"], vm["conditions"]) for vm in machines] == [("in-use", [])] * 4
    run.send_signal(signal.SIGTERM)
    await run.communicate()
    assert run.returncode == 130
    await nothing_stays(shared_server)


async def test_errors_of_the_server_are_named_and_fail_it(tmp_path: Path) -> None:
    async with broken_server() as url:
        run = await start(url, tmp_path, "agents: 0\nadmin_pages: 0\nstay: 0 s\narrivals: 2 in 10 ms")
        said = (await run.communicate())[0].decode()
    assert run.returncode == 1, said
    found = json.loads((tmp_path / "report" / "swarm.json").read_text())
    assert (found["verdict"], found["errors_by_kind"]) == ("failed", {"person: page 500": 2})
    assert "2 times person: page 500, such as: /join/default: out of order" in found["reasons"]
    assert "FAILED 2 times person: page 500" in said


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://192.0.2.1:8080", "192.0.2.1 is not this machine"),
        ("http://[2001:db8::1]", "2001:db8::1 is not this machine"),
        ("ftp://127.0.0.1", "is no address of a server"),
        ("http://127.0.0.1/admin", "without a path"),
        ("http://kim:pw@127.0.0.1", "is no address of a server"),
        ("http://127.0.0.1:99999", "is no address of a server"),
    ],
)
def test_only_this_machines_own_servers_are_loaded(
    url: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(monkeypatch, url, write(tmp_path, "agents: 0")) == 2
    assert said in capsys.readouterr().err


def test_a_name_that_also_stands_for_another_machine_is_not_this_one() -> None:
    assert find_target("http://127.0.0.1:8080").is_loopback
    assert Target("http", "here", 80, ("127.0.0.1", "::1")).is_loopback
    assert not Target("http", "here", 80, ("127.0.0.1", "192.0.2.1")).is_loopback
    with pytest.raises(WrongTarget, match="no address"):
        find_target("127.0.0.1:8080")


def test_another_machine_is_loaded_only_by_who_types_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for typed in ("yes\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert run_here(monkeypatch, "http://192.0.2.1", write(tmp_path, "agents: 0"), "--anywhere") == 2
        captured = capsys.readouterr()
        assert "Type its name to go on" in captured.out
        assert "'192.0.2.1' was not typed; nothing was done" in captured.err


@pytest.mark.parametrize(
    ("scenario", "missing", "said"),
    [
        ("agents: 1", "LABLINK_API_TOKEN", "set LABLINK_API_TOKEN"),
        ("admin_pages: 1", "LABLINK_ADMIN_PASSWORD", "or admin_pages: 0 in the scenario"),
        ("agents: many", "", "agents: 'many' is not allowed"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line_before_anything_starts(
    scenario: str,
    missing: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if missing:
        monkeypatch.setitem(SECRETS, missing, "")
    assert run_here(monkeypatch, "http://127.0.0.1:1", write(tmp_path, scenario)) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1


def write(directory: Path, scenario: str) -> Path:
    file = directory / "scenario.yaml"
    file.write_text(scenario, encoding="utf-8")
    return file


def run_here(monkeypatch: pytest.MonkeyPatch, url: str, scenario: Path, *more: str) -> int:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return main(["swarm", url, "--scenario", str(scenario), *more])


async def start(url: str, directory: Path, scenario: str, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        str(LABLINK), "swarm", url, "--scenario", str(write(directory, scenario)),
        "--report", str(directory / "report"), *more,
        env={**os.environ, **SECRETS},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


async def nothing_stays(server: Server) -> None:
    """No machine, no seat, no place in line, no page."""
    assert [name for name in await server.list_vms() if name.startswith(PREFIX)] == []
    async with database_of(server) as db:
        mine = [claim for claim in await list_claims(db, only_open=True) if claim.pool == "swarm"]
    assert mine == []


@asynccontextmanager
async def broken_server() -> AsyncIterator[str]:
    """Tells admins that there are no machines, and everybody else that it is out of order."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65_536):
            is_admin = b"/api/admin/" in head.split(b"\r\n", 1)[0]
            body = b'{"instances": []}' if is_admin else b'{"error": {"message": "out of order"}}'
            status = b"200 OK" if is_admin else b"500 Broken"
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
