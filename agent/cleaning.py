"""Cleaning: everything of a session goes, and whether it has gone is looked at, before its machine is offered again.

It may be broken off at any point, by the end of the agent or by a power cut, and begun again from the start.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.client import Client
from agent.commands import CommandFailed, claim_id_of
from agent.config import Config
from agent.container import DockerAway, find_container, identify_container, list_volumes
from agent.preparation import ask_what_to_prepare, tell_step
from agent.program import BrokenOff, ProgramFailed, run_to_end, script_argv
from agent.removal import end_processes, forget, list_own, verify, wipe_files
from agent.session import MARK, Session, SessionError, record_of, session_of
from agent.store import Store
from agent.terminals import Terminals
from agent.workload import Emit, PreparationFailed, reset

# How long all of it may take where the server does not say, and what of that is kept for what follows the script.
DEADLINE_S, KEPT_S = 300.0, 30.0
SOURCE, RECORD = "cleaning", "container"

Tell = Callable[[str], None]


class Cleaning:
    """All cleaning of one agent. ``emit`` takes lines for the machine's log, with the source that they are of."""

    def __init__(
        self, config: Config, store: Store, terminals: Terminals, emit: Emit, stopping: threading.Event
    ) -> None:
        self._config, self._store, self._terminals = config, store, terminals
        self._emit, self._stopping = emit, stopping

    def note(self, claim_id: int) -> None:
        """Records in which container a session begins: it must not be the next one's.

        Raises:
            DockerAway: nobody knows.
        """
        path = record_of(self._store, claim_id) / RECORD
        if self._config.container and not path.exists():
            found = identify_container(self._config.container)
            if found is not None:
                self._store.write(path, json.dumps({"id": found.id, "volumes": found.volumes}))

    def run(self, payload: Mapping[str, Any], client: Client, tell: Tell) -> tuple[str, ...]:
        """Removes the session of a claim; one that never was is no error. Returns what was verified.

        Raises:
            CommandFailed: something is left, or it could not be made sure that nothing is; says what.
            BrokenOff: the agent ends; it is to be done again.
        """
        began, deadline_s = time.monotonic(), _deadline_s(payload)
        session = session_of(self._store, claim_id_of(payload), self._config.hostname)
        try:
            config = self._ask(client)
            tell("The processes of the session are ended.")
            own = list_own(session)
            self._terminals.end_of(session.claim_id)
            end_processes(session, own)
            self._run_script(config, session, max(deadline_s / 2, deadline_s - KEPT_S), tell)
            tell("The files of the session are removed.")
            wipe_files(session)
            verified = self._reset_container(config, session, client, began + deadline_s, tell)
            tell("The machine is searched for what is left.")
            verified = (*verify(self._store, session), *verified)
            forget(self._store, session)
        except BrokenOff:
            raise
        except (SessionError, ProgramFailed, PreparationFailed, DockerAway, OSError, ValueError) as exc:
            if self._stopping.is_set():
                raise BrokenOff(str(exc)) from exc
            raise CommandFailed(str(exc)) from exc
        return (*verified, "the cleaning script's success") if config.cleaning_script else verified

    def _ask(self, client: Client) -> Config:
        if not self._config.asks_server:
            return self._config
        return ask_what_to_prepare(self._config, self._store, client, self._stopping)

    def _run_script(self, config: Config, session: Session, deadline_s: float, tell: Tell) -> None:
        if config.cleaning_script is None:
            return
        tell("The cleaning script runs.")
        run_to_end(
            "cleaning script",
            script_argv("cleaning script", config.cleaning_script),
            directory=config.home,
            environment=_environment(config, session),
            emit=lambda said: self._emit(SOURCE, said),
            deadline_s=deadline_s,
            stopping=self._stopping,
        )
        # What it left running would be taken for the session's.
        end_processes(session)

    def _reset_container(
        self, config: Config, session: Session, client: Client, end: float, tell: Tell
    ) -> tuple[str, ...]:
        """Makes sure that the container is another than the session's. Returns what was verified."""
        name, record = config.container, record_of(self._store, session.claim_id)
        if name is None or not record.is_dir():
            return ()
        self.note(session.claim_id)
        found = identify_container(name)
        if config.image and (found is None or found.made_by == str(config.home)):
            tell("The container is made anew from its image.")
            left_s = max(KEPT_S, end - time.monotonic())
            reset(
                replace(config, startup_deadline_s=left_s),
                self._emit,
                self._stopping,
                lambda step: tell_step(client, step, str),
            )
        _verify_container(name, record)
        return ("a new container", "volumes of the former one")


def _verify_container(name: str, record: Path) -> None:
    former = json.loads((record / RECORD).read_text(encoding="utf-8")) if (record / RECORD).exists() else {}
    now, found = identify_container(name), find_container(name)
    if now is None or found is None or not found.is_running:
        raise SessionError(f"the container {name} does not run after it was cleaned")
    if now.id == former.get("id"):
        raise SessionError(
            f"the container {name} was not made by this agent, and is still the session's: its cleaning script must "
            "make it anew"
        )
    if volumes := list_volumes(former.get("volumes", ())):
        raise SessionError(f"volumes of the session's container are left: {', '.join(volumes)[:200]}")


def _environment(config: Config, session: Session) -> dict[str, str]:
    """What the script can know. It bears the session's mark, so that one of a former life is ended with the session."""
    return {
        **os.environ,
        MARK: str(session.directory),
        "LABLINK_SESSION_HOME": str(session.home),
        "LABLINK_SESSION_USER": session.user or "",
        "LABLINK_CONTAINER": config.container or "",
    }


def _deadline_s(payload: Mapping[str, Any]) -> float:
    """Counted by the server from the moment at which the machine's cleaning began; a little less for the way."""
    told = payload.get("deadline_s")
    return float(told) if isinstance(told, (int, float)) and told > 0 else DEADLINE_S
