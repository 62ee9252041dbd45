"""A researcher's session on this machine: a directory of its own, so that removing it removes everything of it."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.store import Store

END_GRACE_S = 5.0
# What a session may see of the agent's environment: never the agent's own variables.
_PASSED = ("PATH", "LANG", "LC_ALL", "TZ")


class SessionError(Exception):
    """The session could not be made or removed; the message is for people."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session. Whatever runs in it is started with ``environment()``: by its HOME it is found again at the end."""

    claim_id: int
    directory: Path
    hostname: str

    @property
    def home(self) -> Path:
        """Its home directory."""
        return self.directory / "home"

    @property
    def tmp(self) -> Path:
        """Its temporary directory."""
        return self.directory / "tmp"

    def environment(self) -> dict[str, str]:
        """The environment of everything that runs in it."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        return {**passed, "HOME": str(self.home), "TMPDIR": str(self.tmp), "HOSTNAME": self.hostname}


def prepare_session(store: Store, claim_id: int, hostname: str) -> Session:
    """Ensures the session of a claim."""
    session = _session(store, claim_id, hostname)
    for part in (session.directory, session.home, session.tmp):
        part.mkdir(mode=0o700, parents=True, exist_ok=True)
    return session


def find_session(store: Store, claim_id: int, hostname: str) -> Session | None:
    """The session of a claim, if it was prepared and not yet removed."""
    session = _session(store, claim_id, hostname)
    return session if session.home.is_dir() else None


def end_session(store: Store, claim_id: int, hostname: str) -> None:
    """Ends every process of a session and removes its files; one that never was is no error.

    Raises:
        SessionError: something of it is left.
    """
    session = _session(store, claim_id, hostname)
    _end_processes(str(session.home))
    shutil.rmtree(session.directory, ignore_errors=True)
    if session.directory.exists():
        raise SessionError("files of the session could not be removed")


def _session(store: Store, claim_id: int, hostname: str) -> Session:
    return Session(claim_id, store.home / "sessions" / str(claim_id), hostname)


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
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=END_GRACE_S)
    if alive:
        raise SessionError(f"{len(alive)} processes of the session do not end")
