"""What the server may ask of an agent. Each command is done once, however often it is delivered."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import psutil

from agent import __version__
from agent.store import Store

REBOOT, STOP = "reboot", "stop"
END_GRACE_S = 5.0


class CommandFailed(Exception):
    """The command could not be done; the message is for people."""


def execute(store: Store, kind: str, payload: Mapping[str, Any]) -> str:
    """Does what ``kind`` says; returns a sentence about it. ``reboot`` and ``stop`` follow after the answer.

    Raises:
        CommandFailed: it could not be done.
    """
    if kind == "prepare_session":
        return _prepare_session(store, _claim_id(payload))
    if kind == "end_session":
        return _end_session(store, _claim_id(payload))
    if kind in (REBOOT, STOP):
        return f"{kind} begins"
    raise CommandFailed(f"unknown command kind '{kind}': this agent is version {__version__}")


def _claim_id(payload: Mapping[str, Any]) -> int:
    claim_id = payload.get("claim_id")
    if not isinstance(claim_id, int) or isinstance(claim_id, bool) or claim_id < 1:
        raise CommandFailed("the command names no claim")
    return claim_id


def _prepare_session(store: Store, claim_id: int) -> str:
    """A directory of its own for each session, so that removing it removes everything of it."""
    directory = store.home / "sessions" / str(claim_id)
    for part in (directory, directory / "home", directory / "tmp"):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    return "the session is ready"


def _end_session(store: Store, claim_id: int) -> str:
    directory = store.home / "sessions" / str(claim_id)
    _end_processes(str(directory / "home"))
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise CommandFailed("files of the session could not be removed")
    return "the session was removed"


def _end_processes(home: str) -> None:
    """Ends every process whose HOME is the session's: that is how sessions are started."""
    own = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == home:
                process.terminate()
                own.append(process)
        except (psutil.Error, OSError):
            continue
    _, alive = psutil.wait_procs(own, timeout=END_GRACE_S)
    for process in alive:
        process.kill()
    _, alive = psutil.wait_procs(alive, timeout=END_GRACE_S)
    if alive:
        raise CommandFailed(f"{len(alive)} processes of the session do not end")


def reboot_machine(command: str) -> None:
    """Runs the configured reboot command (one word a space), on machines that have one."""
    subprocess.run(command.split(), timeout=60, check=False)
