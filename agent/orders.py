"""What the server orders: heard by long polls, done once each, and answered."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from agent.checks import CHECK_SESSION, check_session
from agent.cleaning import Cleaning
from agent.client import Backoff, Client, Refused, ServerAway
from agent.commands import (
    PREPARE_SESSION,
    REBOOT,
    RESTART,
    STOP,
    CommandFailed,
    claim_id_of,
    execute,
    reboot_machine,
)
from agent.config import Config
from agent.container import DockerAway
from agent.crd import END_SESSION, START_CRD, Crd
from agent.crd_host import CrdError
from agent.errands import Errands
from agent.logs import LogBuffer
from agent.own_log import asked_by
from agent.program import BrokenOff
from agent.store import Store
from agent.terminals import Terminals

POLL_S, ERRAND_PAUSE_S = 25, 0.5
EXIT_REBOOT = 75  # EX_TEMPFAIL: whoever supervises this process starts it again

logger = logging.getLogger("lablink.agent")


class Orders:
    """One agent's. ``restart`` restarts its workload, ``stop`` ends it with a status, ``beat`` has it beat now."""

    def __init__(
        self,
        config: Config,
        store: Store,
        logs: LogBuffer,
        stopping: threading.Event,
        *,
        restart: Callable[[], str],
        stop: Callable[[int], None],
        beat: Callable[[], None],
    ) -> None:
        self._config, self._store, self._logs, self._stopping = config, store, logs, stopping
        self._restart, self._stop, self._beat = restart, stop, beat
        self._terminals = Terminals(store, config.server_url, config.container)
        self._crd = Crd(store, config.hostname, config.crd_start_host)
        self._cleaning = Cleaning(config, store, self._terminals, logs.add, stopping)
        self._errands = Errands()

    @property
    def is_cleaning(self) -> bool:
        """Whether a session is being removed."""
        return self._errands.are_underway(END_SESSION)

    def wait(self, within_s: float) -> None:
        """Waits until nothing of them runs any more, or for so long."""
        self._errands.wait(within_s)

    def poll(self, token: str) -> None:
        """Hears and obeys until the agent stops."""
        client, backoff = Client(self._config.server_url, token), Backoff()
        while not self._stopping.is_set():
            try:
                answer = client.get(f"/api/commands?wait={POLL_S}", timeout_s=POLL_S + 10)
                refused = None
                for command in answer.get("commands", []):
                    # One whose result is refused is delivered again at once: the others' turn, and a pause, come first.
                    refused = (
                        self._take(client, command["id"], command["kind"], command.get("payload") or {}) or refused
                    )
                if refused:
                    raise refused
                backoff.reset()
                if self._errands:
                    # Their commands are delivered at every poll, until they have a result.
                    self._errands.wait(ERRAND_PAUSE_S)
            except (ServerAway, Refused) as exc:
                self._stopping.wait(backoff.pause_s(exc))

    def _take(self, client: Client, command_id: int, kind: str, payload: dict[str, object]) -> Refused | None:
        """Obeys a command, at once or beside the others."""
        if kind == STOP and self.is_cleaning:
            # A machine that leaves leaves clean; it is told again.
            return None
        if (
            kind not in {START_CRD, END_SESSION, RESTART, CHECK_SESSION}
            or self._store.find_result(command_id) is not None
        ):
            return self._obey(client, command_id, kind, payload)
        self._errands.begin(command_id, kind, lambda: self._run_errand(command_id, kind, payload))
        return None

    def _run_errand(self, command_id: int, kind: str, payload: dict[str, object]) -> None:
        # A result that is not heard now is told at the next delivery.
        with contextlib.suppress(ServerAway):
            self._obey(Client(self._config.server_url, self._store.find_token() or ""), command_id, kind, payload)
        # Only after a restart is what a beat says of the machine believed again.
        self._beat()

    def _execute(
        self, client: Client, command_id: int, kind: str, payload: dict[str, object]
    ) -> tuple[str, dict[str, Any]]:
        """Does a command; returns a sentence and what else the server shall know."""

        def tell(detail: str) -> None:
            logger.info("command %s (%s): %s", command_id, kind, detail)
            with contextlib.suppress(ServerAway, Refused):
                client.post(f"/api/commands/{command_id}", {"status": "running", "detail": detail})

        try:
            if kind == START_CRD:
                return "Chrome Remote Desktop is ready", self._crd.start(payload, tell)
            if kind == RESTART:
                return self._restart(), {}
            if kind == CHECK_SESSION:
                return check_session(self._config, self._store, payload, self._stopping, self._logs.redacted)
            if kind == END_SESSION:
                with self._crd.ended(payload):
                    verified = self._cleaning.run(payload, client, tell)
                return "the session was removed", {"verified": ", ".join(verified)}
            detail = execute(self._store, self._config.hostname, kind, payload, terminals=self._terminals)
            if kind == PREPARE_SESSION:
                self._cleaning.note(claim_id_of(payload))
        except (CrdError, DockerAway, OSError) as exc:
            raise CommandFailed(str(exc)) from exc
        return detail, {}

    def _obey(self, client: Client, command_id: int, kind: str, payload: dict[str, object]) -> Refused | None:
        with asked_by(payload):
            return self._do_once(client, command_id, kind, payload)

    def _do_once(self, client: Client, command_id: int, kind: str, payload: dict[str, object]) -> Refused | None:
        """Does a command, once, and tells its result. Returns the server's refusal to hear it, if any."""
        result = self._store.find_result(command_id)
        is_new = result is None
        if result is None:
            try:
                detail, data = self._execute(client, command_id, kind, payload)
                result = {"status": "succeeded", "detail": detail, "data": data}
            except BrokenOff:
                return None
            except CommandFailed as exc:
                result = {"status": "failed", "detail": str(exc), "data": {}}
            logger.info("command %s (%s): %s", command_id, kind, result["detail"])
            # Kept before it is told: if telling fails, it is told again at the next delivery, not done again.
            self._store.keep_result(command_id, result)
        refused = None
        try:
            client.post(f"/api/commands/{command_id}", result)
        except Refused as exc:
            refused = exc
            logger.warning("the result of command %s was refused: %s", command_id, exc)
        except ServerAway:
            # Nobody knows whether it was heard. An end or a boot comes all the same; it is told at the next delivery.
            if not (is_new and kind in {STOP, REBOOT}):
                raise
        if kind == STOP:
            # It is worth nothing now, and without it a later boot of the machine does not begin to ask.
            self._store.forget_token()
            self._stop(0)
        elif kind == REBOOT and is_new:
            if self._config.reboot_command:
                reboot_machine(self._config.reboot_command)
            self._stop(EXIT_REBOOT)
        return refused
