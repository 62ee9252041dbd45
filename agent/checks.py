"""Checks of a session, for a rehearsal: whether it is what people need. They run as its user, in its place."""

from __future__ import annotations

import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from agent.commands import CommandFailed, claim_id_of
from agent.config import Config
from agent.crd_host import CrdHost
from agent.program import LAST_LINES_S, LOOK_S, BrokenOff, Program
from agent.session import MARK, Session, SessionError, find_session
from agent.store import Store

CHECK_SESSION = "check_session"
# A line is cut at a length at which no secret is cut in half; the server cuts again.
DEADLINE_S, MAX_LINES, MAX_LINE = 60.0, 20, 4_000


def check_session(
    config: Config,
    store: Store,
    payload: Mapping[str, Any],
    stopping: threading.Event,
    redact: Callable[[str], str],
) -> tuple[str, dict[str, Any]]:
    """Checks the session of a claim: by a command, or (``what``: crd) whether it could have a remote desktop.

    Returns a sentence, and for a command ``exit_status`` (None: it was ended at its deadline) and its last ``lines``.

    Raises:
        CommandFailed: it could not be checked, or it cannot have a remote desktop.
        BrokenOff: the agent ends; it is to be done again.
    """
    session = find_session(store, claim_id_of(payload), config.hostname)
    if session is None:
        raise CommandFailed("the session is not there")
    if payload.get("what") == "crd":
        return _look_for_crd(session, config.crd_start_host), {}
    command = payload.get("command")
    if not isinstance(command, str) or not command.strip():
        raise CommandFailed("there is nothing to check: the command is empty")
    status, lines = _run(config, session, command, _deadline_s(payload), stopping)
    said = "was ended at its deadline" if status is None else f"ended with exit status {status}"
    return f"the check command {said}", {"exit_status": status, "lines": [redact(line)[:MAX_LINE] for line in lines]}


def _look_for_crd(session: Session, start_host: Path) -> str:
    """By a look alone: a code of Google's works once, and is not wasted on this."""
    if not CrdHost(session, start_host).is_installed():
        raise CommandFailed(f"Chrome Remote Desktop is not installed on this machine ({start_host})")
    return "Chrome Remote Desktop is installed"


def _run(
    config: Config, session: Session, command: str, deadline_s: float, stopping: threading.Event
) -> tuple[int | None, list[str]]:
    lines: deque[str] = deque(maxlen=MAX_LINES)
    try:
        program = _start(config, session, command, lines.append)
    except (OSError, SessionError) as exc:
        raise CommandFailed(f"the check command could not be started: {exc}") from exc
    end = time.monotonic() + deadline_s
    while program.status is None:
        if stopping.wait(LOOK_S):
            program.end()
            raise BrokenOff("the check command was broken off")
        if time.monotonic() > end:
            program.end()
            return None, list(lines)
    program.read_on(within_s=LAST_LINES_S)
    return program.status, list(lines)


def _start(config: Config, session: Session, command: str, emit: Callable[[str], None]) -> Program:
    environment = {"LANG": "C.UTF-8", **session.environment()}
    if config.container:
        options = [f"--env={name}={environment[name]}" for name in ("LANG", MARK)]
        argv = ["docker", "exec", *options, config.container, "sh", "-lc", command]
        return Program(argv, directory=config.home, environment=environment, emit=emit)
    # As people's terminals: by a login shell, in the session's home.
    shell = shutil.which("bash") or "/bin/sh"
    return Program(
        [shell, "-lc", command],
        directory=session.home,
        environment=environment,
        emit=emit,
        identity=session.identity(),
    )


def _deadline_s(payload: Mapping[str, Any]) -> float:
    told = payload.get("deadline_s")
    return float(told) if isinstance(told, (int, float)) and told > 0 else DEADLINE_S
