"""The agent's life: enrol or re-announce, prepare the machine, then beat, listen and ship logs until told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from agent import __version__
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
from agent.config import Config, parse
from agent.container import DockerAway
from agent.crd import END_SESSION, START_CRD, Crd
from agent.crd_host import CrdError
from agent.errands import Errands
from agent.health import Examiner
from agent.join import main as join
from agent.logs import BufferHandler, LogBuffer, ship
from agent.outside_logs import follow_container, ship_boot
from agent.own_log import TextFormatter, asked_by, set_up_logging
from agent.preparation import ask_what_to_prepare, tell_step
from agent.program import BrokenOff
from agent.spot import SpotWatch
from agent.store import Store
from agent.terminals import Terminals
from agent.workload import PreparationFailed, prepare, restart

POLL_S, ERRAND_PAUSE_S, SHIP_S = 25, 0.5, 0.4
# At the end: for the preparation to be broken off, and for each of the last things said.
FAREWELL_S, LAST_WORD_S = 3.0, 1.5
EXIT_REBOOT = 75  # EX_TEMPFAIL: whoever supervises this process starts it again
UNAUTHORIZED = 401
REFUSED_LIMIT_S = 60.0

logger = logging.getLogger("lablink.agent")


def main(argv: Sequence[str]) -> int:
    """Runs the agent until it is told to stop, or joins this machine. Returns the process's exit status."""
    if argv[:1] == ["join"]:
        return join(argv[1:])
    config = parse(argv)
    # The workload and every other process of ours must not see what only the agent may know.
    os.environ.pop("LABLINK_ENROLMENT_TOKEN", None)
    set_up_logging(config.log_format)
    try:
        agent = Agent(config)
    except OSError as exc:
        logger.error("the data directory %s cannot be used: %s", config.home, exc)
        return 1
    _stop_on_signals(agent)
    return agent.run()


def _stop_on_signals(agent: Agent) -> None:
    """A handler runs between any two steps of the main thread, which may hold the very lock that stopping takes.

    So the handler only tells a thread, by the one queue that allows this.
    """
    told: queue.SimpleQueue[int] = queue.SimpleQueue()

    def wait() -> None:
        told.get()
        agent.stop()

    threading.Thread(target=wait, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.put(number))


class Agent:
    """One agent. Its threads: this one beats; one prepares; one polls for commands; one ships logs."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._store = Store(config.home)
        self._terminals = Terminals(self._store, config.server_url, config.container)
        self._crd = Crd(self._store, config.hostname, config.crd_start_host)
        self._errands = Errands()
        secrets = (config.enrolment_token or "", self._store.find_token() or "", *_secrets_of(config))
        self._logs = LogBuffer(secrets, spool=config.home / "logs.spool")
        handler = BufferHandler(self._logs)
        handler.setFormatter(TextFormatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        self._stopping = threading.Event()
        self._beat_now = threading.Event()
        self._cleaning = Cleaning(config, self._store, self._terminals, self._logs.add, self._stopping)
        url = config.spot_metadata_url
        self._spot = SpotWatch(url, self._beat_now.set) if url else None
        self._interval_s = 20.0
        self._phase = "starting"
        self._problem: str | None = None
        # The workload is worked on by one at a time.
        self._preparing = threading.Lock()
        self._exit_status = 0

    def run(self) -> int:
        """Lives. Returns the exit status: 0, or 75 when the machine shall boot again."""
        logger.info("agent %s of %s begins, boot %s", __version__, self._config.hostname, self._config.boot_id)
        token = self._enrol()
        if token is None:
            return self._exit_status
        works = (lambda: self._prepare(token), lambda: self._poll(token), lambda: self._ship(token))
        threads = [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in works]
        threads += [threading.Thread(target=self._guard, args=(work,), daemon=True) for work in self._logs_of_others()]
        if self._spot:
            threads.append(threading.Thread(target=self._guard, args=(self._watch_spot,), daemon=True))
        for thread in threads:
            thread.start()
        client = Client(self._config.server_url, token)
        examiner = Examiner(self._config.home, self._config.container)
        self._beat(client, examiner)
        # What the preparation and the cleaning run must not outlive us: it runs again at the next start.
        threads[0].join(FAREWELL_S)
        self._errands.wait(FAREWELL_S)
        self._say_farewell(client, examiner)
        return self._exit_status

    def stop(self, exit_status: int = 0) -> None:
        """Ends the agent soon. Not for signal handlers: it takes locks."""
        self._exit_status = exit_status
        self._stopping.set()
        self._beat_now.set()

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:
            logger.exception("a part of the agent failed; ending so that it is started again")
            self.stop(1)

    def _enrol(self) -> str | None:
        backoff = Backoff()
        while not self._stopping.is_set():
            stored = self._store.find_token()
            try:
                return self._announce(stored)
            except Refused as exc:
                logger.error("the server refused this machine: %s", exc)
                pause_s = backoff.pause_s(exc)
            except ServerAway as exc:
                logger.warning("the server does not answer (%s)", exc)
                pause_s = backoff.pause_s(exc)
            self._stopping.wait(pause_s)
        return None

    def _announce(self, stored: str | None) -> str:
        """Announces this boot with the agent token; without one, or if it is dead, with the enrolment token."""
        config = self._config
        body = {"hostname": config.hostname, "boot_id": config.boot_id, "agent_version": __version__}
        for token in (stored, config.enrolment_token):
            if not token:
                continue
            try:
                answer = Client(config.server_url, token).post("/api/vm_startup", body)
            except Refused as exc:
                # A token that never beat may have been replaced while we were away: the enrolment token may ask again.
                if exc.status == UNAUTHORIZED and token == stored and config.enrolment_token:
                    continue
                raise
            self._interval_s = float(answer.get("heartbeat_interval_s") or self._interval_s)
            fresh = answer.get("agent_token") or stored
            if not isinstance(fresh, str):
                raise ServerAway("an answer without a token")
            self._logs.secrets.add(fresh)
            if fresh != stored:
                self._store.keep_token(fresh)
            logger.info("enrolled" if fresh != stored else "boot announced")
            return fresh
        raise Refused(UNAUTHORIZED, "there is no token: set LABLINK_ENROLMENT_TOKEN or --enrolment-token-file")

    def _prepare(self, token: str, work: Callable[..., None] = prepare) -> str | None:
        """Prepares the machine, by ``work``. Returns what kept it from being ready, if anything did."""
        with self._preparing:
            self._problem = None
            self._set_phase("preparing")
            client = Client(self._config.server_url, token)
            try:
                config = self._config
                if config.asks_server:
                    config = ask_what_to_prepare(config, self._store, client, self._stopping)
                    self._logs.secrets.update(filter(None, _secrets_of(config)))
                work(config, self._logs.add, self._stopping, lambda step: tell_step(client, step, self._logs.redacted))
            except PreparationFailed as exc:
                if not self._stopping.is_set():
                    logger.error("%s", exc)
                    self._problem = str(exc)
                    self._beat_now.set()
                return str(exc)
            self._set_phase("ready")
            return None

    def _restart(self) -> str:
        """Ends and begins the workload again; where there is none, only a reboot can change anything."""
        if self._phase == "ready" and not self._config.container:
            raise CommandFailed("this machine has no workload that could be restarted")
        if problem := self._prepare(self._store.find_token() or "", restart):
            raise CommandFailed(problem)
        return "the workload was restarted"

    def _logs_of_others(self) -> list[Callable[[], None]]:
        config, works = self._config, []
        if name := config.container:
            works.append(lambda: follow_container(name, self._logs, config.home, self._stopping))
        if files := config.boot_files:
            works.append(lambda: ship_boot(*files, self._logs, config.boot_id, self._stopping))
        return works

    def _watch_spot(self) -> None:
        assert self._spot
        self._spot.run(self._stopping)

    def _set_phase(self, phase: str) -> None:
        self._phase = phase
        self._beat_now.set()

    def _beat(self, client: Client, examiner: Examiner) -> None:
        backoff = Backoff()
        while True:
            self._beat_now.clear()
            # Looked at only now: whoever stops us sets this first and the other then.
            if self._stopping.is_set():
                return
            try:
                client.post("/api/heartbeat", self._report(examiner))
                backoff.reset()
                self._beat_now.wait(self._interval_s)
            except (ServerAway, Refused) as exc:
                logger.warning("heartbeat not taken: %s", exc)
                self._stopping.wait(min(backoff.pause_s(exc), REFUSED_LIMIT_S))

    def _say_farewell(self, client: Client, examiner: Examiner) -> None:
        self._phase = "stopping"
        logger.info("agent ends")
        with contextlib.suppress(ServerAway, Refused):
            client.post("/api/heartbeat", self._report(examiner), timeout_s=LAST_WORD_S)
            ship(self._logs, client, timeout_s=LAST_WORD_S)

    def _report(self, examiner: Examiner) -> dict[str, object]:
        # Between two people there may be no container for a while; that is no fault of the machine's.
        is_cleaning = self._errands.are_underway(END_SESSION)
        report = examiner.examine(is_prepared=self._phase in {"ready", "stopping"} and not is_cleaning)
        if self._problem:
            report.add("unhealthy", self._problem)
        ending = {}
        if self._spot and self._spot.ends_at and self._spot.reason:
            report.add("unhealthy", self._spot.reason)
            ending["interruption_at"] = self._spot.ends_at.isoformat()
        return {
            **ending,
            "boot_id": self._config.boot_id,
            "phase": self._phase,
            "health": report.health,
            "reasons": report.reasons,
            "gpus": report.gpus,
            "cpu_pct": report.cpu_pct,
            "memory_pct": report.memory_pct,
            "disk_free_pct": report.disk_free_pct,
            "disk_free_gb": report.disk_free_gb,
            "container": report.container,
            "sent_at": datetime.now(UTC).isoformat(),
        }

    def _poll(self, token: str) -> None:
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
        if kind == STOP and self._errands.are_underway(END_SESSION):
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
        self._beat_now.set()

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
            self.stop()
        elif kind == REBOOT and is_new:
            if self._config.reboot_command:
                reboot_machine(self._config.reboot_command)
            self.stop(EXIT_REBOOT)
        return refused

    def _ship(self, token: str) -> None:
        client, backoff = Client(self._config.server_url, token), Backoff()
        while True:
            self._logs.filled.wait()
            # A moment's patience makes one batch of a burst, and bounds what a flood may cost.
            time.sleep(SHIP_S)
            try:
                ship(self._logs, client)
                backoff.reset()
            except ServerAway as exc:
                time.sleep(backoff.pause_s(exc))


def _secrets_of(config: Config) -> tuple[str, ...]:
    """What a repository's address may hold: https://user:password@…, or a token as the user."""
    parts = urlsplit(config.repository or "")
    user = parts.username if parts.scheme in {"http", "https"} else None
    return (parts.password or "", user or "")
