"""What the server may ask of an agent. Each command is done once, however often it is delivered."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from typing import Any

from agent import __version__
from agent.session import SessionError, find_session, prepare_session
from agent.store import Store
from agent.terminals import TerminalError, Terminals

PREPARE_SESSION, REBOOT, RESTART, STOP = "prepare_session", "reboot", "restart", "stop"
REBOOT_DEADLINE_S = 60.0

logger = logging.getLogger("lablink.agent")


class CommandFailed(Exception):
    """The command could not be done; the message is for people."""


def execute(store: Store, hostname: str, kind: str, payload: Mapping[str, Any], *, terminals: Terminals) -> str:
    """Does what ``kind`` says; returns a sentence about it. ``reboot`` and ``stop`` follow after the answer.

    Raises:
        CommandFailed: it could not be done.
    """
    try:
        if kind == PREPARE_SESSION:
            prepare_session(store, claim_id_of(payload), hostname)
            return "the session is ready"
        if kind == "open_terminal":
            return _open_terminal(store, terminals, hostname, payload)
    except (SessionError, TerminalError, OSError) as exc:
        raise CommandFailed(str(exc)) from exc
    if kind in (REBOOT, STOP):
        return f"{kind} begins"
    raise CommandFailed(f"unknown command kind '{kind}': this agent is version {__version__}")


def _open_terminal(store: Store, terminals: Terminals, hostname: str, payload: Mapping[str, Any]) -> str:
    session = find_session(store, claim_id_of(payload), hostname)
    if session is None:
        raise CommandFailed("the session is not there")
    terminals.open(_id(payload, "terminal"), session)
    return "the terminal is open"


def claim_id_of(payload: Mapping[str, Any]) -> int:
    """The claim that a command is about.

    Raises:
        CommandFailed: it names none.
    """
    return _id(payload, "claim")


def _id(payload: Mapping[str, Any], noun: str) -> int:
    found = payload.get(f"{noun}_id")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise CommandFailed(f"the command names no {noun}")
    return found


def reboot_machine(command: str) -> None:
    """Runs the configured reboot command (one word a space), on machines that have one."""
    try:
        subprocess.run(command.split(), timeout=REBOOT_DEADLINE_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        logger.error("the reboot command failed: %s", exc)
