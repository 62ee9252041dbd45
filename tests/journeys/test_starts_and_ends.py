"""Starting and ending: one clear line when it cannot start, and nothing left whenever it is told to end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness.processes import list_processes
from tests.harness.server import COMMAND, Server
from tests.harness.waiting import until


async def test_a_demo_told_to_end_again_and_again_in_a_launch_ends_once_and_whole(start_server) -> None:
    server = await start_server("terraform.parallelism=1", verb="demo")
    _, names = await server.launch(1)
    await server.until_status(names, "available")
    await server.launch(12)
    await until(lambda: server.count_begun() >= 3, every_s=0.01)
    await end_impatiently(server)
    assert said_since_ready(server).count("stopping") == 1
    assert "Traceback" not in server.log.read_text()


@pytest.mark.long
async def test_a_start_told_to_end_at_any_moment_leaves_nothing_and_can_be_begun_anew(tmp_path: Path) -> None:
    command = Server(tmp_path / "home", verb="demo", program=COMMAND, is_first=True)
    command.spawn()
    maps = Path(f"/proc/{command.process.pid}/maps")
    await until(lambda: "pydantic_core" in maps.read_text(), every_s=0.005, what="it imports")
    await end_impatiently(command)
    # From here on it makes no difference that it has imported everything already.
    imported = Server(command.home, verb="demo", is_first=True)
    moments: dict[str, Callable[[], object]] = {
        "the database is made": lambda: find_process(imported, "initdb"),
        "Postgres runs": (command.home / "postgres" / "postmaster.pid").exists,
        "it has almost begun": lambda: "listening" in imported.log.read_text(),
    }
    for moment, reached in moments.items():
        imported.spawn()
        await until(reached, every_s=0.005, what=moment)
        await end_impatiently(imported)
    assert "Traceback" not in imported.log.read_text()
    await command.start()
    assert await command.stop() == 0
    await imported.close()
    await command.close()


async def test_a_first_start_killed_while_it_makes_its_database_makes_it_anew(tmp_path: Path) -> None:
    server = Server(tmp_path / "home", is_first=True)
    server.spawn()
    await until(lambda: find_process(server, "initdb"), every_s=0.005)
    server.kill()
    await server.start()
    assert await server.stop() == 0
    await server.close()


async def test_a_second_server_in_the_same_data_directory_is_refused_in_one_line(start_server) -> None:
    server = await start_server()
    second = Server(server.home)
    second.log = server.log.with_suffix(".second")
    second.spawn()
    assert await ended(second) == 1
    (line,) = second.log.read_text().splitlines()
    assert line.startswith("lablink: Another LabLink server uses the data directory")
    assert str(server.home) in line
    assert (await server.api.get("/readyz")).status_code == 200
    await second.api.aclose()


async def test_a_port_in_use_is_said_in_one_line_and_nothing_is_started(tmp_path: Path) -> None:
    server = Server(tmp_path / "home", program=COMMAND, is_first=True)
    with socket.create_server(("127.0.0.1", server.port)):
        server.spawn()
        assert await ended(server) == 1
    assert server.log.read_text().splitlines() == [
        f"lablink: Cannot listen on server.host=127.0.0.1 server.port={server.port}: Address already in use."
    ]
    assert not (server.home / "postgres").exists()
    assert list_processes(server.home) == []
    await server.api.aclose()


async def end_impatiently(server: Server) -> None:
    """SIGTERM all the time until it has ended: cleanly, with nothing of it left."""
    process = server.process
    assert process is not None

    def has_ended() -> bool:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        return process.poll() is not None

    await until(has_ended, within_s=40, every_s=0.003, what="it ends")
    assert process.returncode == 0, server.log.read_text()[-3000:]
    assert [(each.name(), each.cmdline()) for each in list_processes(server.home)] == []


def find_process(server: Server, name: str) -> bool:
    return server.home.exists() and bool(list_processes(server.home, name))


async def ended(server: Server) -> int:
    process = server.process
    assert process is not None
    await until(lambda: process.poll() is not None, what="it ends")
    return int(process.returncode)


def said_since_ready(server: Server) -> str:
    return server.log.read_text().rpartition("LabLink is ready")[2]


async def test_a_server_that_others_can_reach_refuses_to_offer_terminals_on_its_own_computer(tmp_path: Path) -> None:
    server = Server(tmp_path / "home", "server.host=0.0.0.0")
    server.spawn()
    assert server.process is not None
    process = server.process
    await until(lambda: process.poll() is not None, within_s=40)
    assert process.returncode == 1
    assert server.log.read_text().splitlines()[-1] == (
        "lablink: server.host=0.0.0.0: whoever gets a seat would get a shell on this computer. "
        "Set pool.default.terminal=false, or serve this computer alone."
    )
    await server.close()
