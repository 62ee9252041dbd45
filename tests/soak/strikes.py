"""SIGKILL, to one thing or to all of them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping

import psutil

from tests.harness.processes import find_postmaster, list_processes
from tests.harness.server import Server


def kill_server(server: Server, luck: random.Random) -> list[str]:
    """The server alone: Terraform, agents and Postgres live on."""
    server.kill()
    return ["the server"]


def kill_terraform(server: Server, luck: random.Random) -> list[str]:
    """Whatever Terraform runs now."""
    return _kill(list_processes(server.home, "terraform"))


def kill_agent(server: Server, luck: random.Random) -> list[str]:
    """One agent."""
    running = sorted(server.vms.list_running().items())
    if not running:
        return []
    hostname, pid = luck.choice(running)
    return [hostname] if _kill([psutil.Process(pid)]) else []


def kill_postgres(server: Server, luck: random.Random) -> list[str]:
    """The embedded Postgres, at its head."""
    postmaster = find_postmaster(server.home)
    return _kill([postmaster] if postmaster else [])


def kill_everything(server: Server, luck: random.Random) -> list[str]:
    """As if the machine had lost its power."""
    server.kill()
    return ["the server", *_kill(list_processes(server.home)), *_kill(list_processes(server.home))]


STRIKES: Mapping[str, Callable[[Server, random.Random], list[str]]] = {
    "the server": kill_server,
    "Terraform": kill_terraform,
    "an agent": kill_agent,
    "Postgres": kill_postgres,
    "everything": kill_everything,
}


def _kill(processes: list[psutil.Process]) -> list[str]:
    killed = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            killed.append(f"{process.name()} {process.pid}")
            process.kill()
    return killed
