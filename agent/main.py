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
from urllib.parse import urlsplit

from agent import __version__
from agent.client import Backoff, Client, Refused, ServerAway
from agent.commands import CommandFailed
from agent.config import Config, parse
from agent.health import Examiner
from agent.join import main as join
from agent.logs import BufferHandler, LogBuffer, ship
from agent.orders import Orders
from agent.outside_logs import follow_container, ship_boot
from agent.own_log import TextFormatter, set_up_logging
from agent.preparation import ask_what_to_prepare, tell_step
from agent.spot import SpotWatch
from agent.store import Store
from agent.workload import PreparationFailed, prepare, restart

SHIP_S = 0.4
# At the end: for the preparation to be broken off, and for each of the last things said.
FAREWELL_S, LAST_WORD_S = 3.0, 1.5
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
        secrets = (config.enrolment_token or "", self._store.find_token() or "", *_secrets_of(config))
        self._logs = LogBuffer(secrets, spool=config.home / "logs.spool")
        handler = BufferHandler(self._logs)
        handler.setFormatter(TextFormatter("%(levelname)s %(message)s"))
        logger.addHandler(handler)
        self._stopping = threading.Event()
        self._beat_now = threading.Event()
        self._orders = Orders(
            config,
            self._store,
            self._logs,
            self._stopping,
            restart=self._restart,
            stop=self.stop,
            beat=self._beat_now.set,
        )
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
        works = (lambda: self._prepare(token), lambda: self._orders.poll(token), lambda: self._ship(token))
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
        self._orders.wait(FAREWELL_S)
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
        report = examiner.examine(is_prepared=self._phase in {"ready", "stopping"} and not self._orders.is_cleaning)
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
