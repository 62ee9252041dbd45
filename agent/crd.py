"""Chrome Remote Desktop in a session: registered for its researcher, and gone with the session.

Each step has a deadline and is told as it begins; together they stay below the command's own on the server.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from agent.crd_host import LOOK_S, CrdError, CrdHost, GivenUp, explain
from agent.session import Session, find_session
from agent.store import Store

START_CRD, END_SESSION = "start_crd", "end_session"
REGISTER_S, START_S, STOP_S, GONE_S, SETTLED_S = 60.0, 30.0, 15.0, 5.0, 1.0
_CODE, _PIN = re.compile(r"4/[A-Za-z0-9_-]{6,512}"), re.compile(r"[0-9]{6,16}")

Tell = Callable[[str], None]


class Crd:
    """All that this agent does with Chrome Remote Desktop; one thing at a time, and an end goes before a start."""

    def __init__(self, store: Store, hostname: str, start_host: Path) -> None:
        self._store, self._hostname, self._start_host = store, hostname, start_host
        self._working = threading.Lock()
        self._given_up = threading.Event()

    def start(self, payload: Mapping[str, Any], tell: Tell) -> dict[str, str]:
        """Registers the session's host with the account of the code and starts it. Returns how Google calls it.

        Raises:
            CrdError: it did not work; nothing of the try is left.
        """
        code, pin = str(payload.get("code")), str(payload.get("pin"))
        if not (_CODE.fullmatch(code) and _PIN.fullmatch(pin)):
            raise CrdError("The code did not arrive whole. Get a new one from Google and paste it.")
        with self._working:
            session = self._find_session(payload)
            if session is None:
                raise GivenUp("The session is not there any more.")
            host = CrdHost(session, self._start_host, self._given_up)
            if not host.is_installed():
                raise CrdError(
                    f"Chrome Remote Desktop is not installed on this machine ({self._start_host}). Tell your organiser."
                )
            try:
                return {"host_id": _start(host, code, pin, tell)}
            except CrdError:
                with contextlib.suppress(CrdError):
                    _unbind(CrdHost(session, self._start_host))
                raise

    @contextmanager
    def ended(self, payload: Mapping[str, Any]) -> Iterator[None]:
        """Stops and unregisters the session's host, if it ever had one; none is started until the session is removed.

        Raises:
            CrdError: something of it is left: nobody else may sit at this machine.
        """
        self._given_up.set()
        with self._working:
            self._given_up.clear()
            session = self._find_session(payload)
            if session is not None:
                host = CrdHost(session, self._start_host)
                _unbind(host)
                host.remove_runtime_directory()
            yield

    def _find_session(self, payload: Mapping[str, Any]) -> Session | None:
        claim_id = payload.get("claim_id")
        return find_session(self._store, claim_id, self._hostname) if isinstance(claim_id, int) else None


def _start(host: CrdHost, code: str, pin: str, tell: Tell) -> str:
    tell("Your machine makes room for the remote desktop.")
    _unbind(host)
    host.ensure_runtime_directory()
    tell("Your machine registers with Google.")
    run = host.register(code, pin, deadline_s=REGISTER_S)
    # By the fact: without systemd the program fails at the end, though it has registered.
    host_id = host.find_host_id()
    if host_id is None:
        raise CrdError(explain(run, "Registering with Google"))
    tell("Your machine starts the desktop.")
    run = host.start(deadline_s=START_S)
    if not _becomes(host.is_running, GONE_S if run.status == 0 else 0):
        raise CrdError(explain(run, "Starting the desktop"))
    return host_id


def _unbind(host: CrdHost) -> None:
    """Ends the host and its registration; a session that never had one costs a look."""
    if not host.directory.exists() and not host.list_processes():
        return
    if host.can_be_asked():
        host.stop(deadline_s=STOP_S)
    for process in host.list_processes():
        with contextlib.suppress(psutil.Error):
            process.kill()
    for path in host.list_registrations():
        path.unlink(missing_ok=True)
    if host.list_registrations():
        raise CrdError("Chrome Remote Desktop is still registered here: its files could not be removed")
    if not _stays_gone(host):
        raise CrdError("Chrome Remote Desktop does not end: its host still runs")


def _stays_gone(host: CrdHost) -> bool:
    """Whether the host is gone for good: a service manager starts one that was ended again, after a moment."""
    gone_since, end = time.monotonic(), time.monotonic() + GONE_S
    while time.monotonic() < end:
        if host.is_running():
            gone_since = time.monotonic()
        elif time.monotonic() - gone_since >= SETTLED_S:
            return True
        time.sleep(LOOK_S)
    return False


def _becomes(fact: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not fact():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_S)
    return True
