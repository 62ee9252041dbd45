"""What the server may ask of an agent. Each command is done once, however often it is delivered."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from typing import Any

from agent import __version__
from agent.session import SessionError, end_session, prepare_session
from agent.store import Store

REBOOT, STOP = "reboot", "stop"
REBOOT_DEADLINE_S = 60.0

logger = logging.getLogger("lablink.agent")


class CommandFailed(Exception):
    """The command could not be done; the message is for people."""


def execute(store: Store, hostname: str, kind: str, payload: Mapping[str, Any]) -> str:
    """Does what ``kind`` says; returns a sentence about it. ``reboot`` and ``stop`` follow after the answer.

    Raises:
        CommandFailed: it could not be done.
    """
    try:
        if kind == "prepare_session":
            prepare_session(store, _claim_id(payload), hostname)
            return "the session is ready"
        if kind == "end_session":
            end_session(store, _claim_id(payload), hostname)
            return "the session was removed"
    except (SessionError, OSError) as exc:
        raise CommandFailed(str(exc)) from exc
    if kind in (REBOOT, STOP):
        return f"{kind} begins"
    raise CommandFailed(f"unknown command kind '{kind}': this agent is version {__version__}")


def _claim_id(payload: Mapping[str, Any]) -> int:
    claim_id = payload.get("claim_id")
    if not isinstance(claim_id, int) or isinstance(claim_id, bool) or claim_id < 1:
        raise CommandFailed("the command names no claim")
    return claim_id


def reboot_machine(command: str) -> None:
    """Runs the configured reboot command (one word a space), on machines that have one."""
    try:
        subprocess.run(command.split(), timeout=REBOOT_DEADLINE_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        logger.error("the reboot command failed: %s", exc)
