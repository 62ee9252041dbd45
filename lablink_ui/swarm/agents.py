"""Machines: they enrol, beat, listen and obey as real agents do, a thousand of them in one process."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent import __version__
from agent.client import Backoff, Refused, ServerAway
from lablink_ui.swarm.http import Answer, Client, Failed
from lablink_ui.swarm.scenario import Span
from lablink_ui.swarm.target import Target
from lablink_ui.swarm.telling import Teller

POLL_S, POLL_PATIENCE_S, ERRAND_PAUSE_S = 25, 45.0, 0.5
ENROL_AT_ONCE = 16
_VERIFIED = "no process is left, no file is left, no account is left"
_STEPS = {"end_session": "ending the session's processes", "start_crd": "registering the machine with Google"}
_DATA = {"end_session": {"verified": _VERIFIED}, "start_crd": {"host_id": "swarm"}}
_SAID = {
    "prepare_session": "the session is ready",
    "end_session": "the session was removed",
    "start_crd": "Chrome Remote Desktop is ready",
    "restart": "the workload runs again",
    "reboot": "reboot begins",
    "stop": "stop begins",
}


@dataclass(frozen=True, slots=True)
class Ways:
    """How the machines behave, in seconds."""

    work: Span
    patience_s: float


async def enrol_all(machines: Sequence[Machine]) -> None:
    """Has all of them enrolled and heard of once, some at a time.

    Raises:
        Failed: one was refused.
    """
    rest = iter(machines)

    async def work() -> None:
        for machine in rest:
            await machine.enrol()
            await machine.beat()

    await asyncio.gather(*(work() for _ in range(ENROL_AT_ONCE)))


class Machine:
    """One machine."""

    def __init__(self, target: Target, hostname: str, token: str, ways: Ways, teller: Teller) -> None:
        self.hostname = hostname
        self._token, self._ways, self._teller = token, ways, teller
        self._client = Client(target)
        self._luck = random.Random(hostname)  # noqa: S311 - the same machine in every run
        self._boot, self._interval_s = 1, 20.0
        self._stopped, self._is_leaving = asyncio.Event(), False
        self._underway: dict[int, asyncio.Task[None]] = {}

    async def enrol(self) -> None:
        """Announces its boot: the first time with its enrolment token, then with its own.

        Raises:
            Failed: it was refused.
        """
        body = {"hostname": self.hostname, "boot_id": f"swarm-{self._boot}", "agent_version": __version__}
        answer = await self._ask("POST", "/api/vm_startup", body)
        found = answer.json()
        self._token = str(found.get("agent_token") or self._token)
        self._interval_s = float(found["heartbeat_interval_s"])

    async def beat(self) -> None:
        """Reports its health.

        Raises:
            Failed: nobody heard it.
        """
        began = time.monotonic()
        await self._ask("POST", "/api/heartbeat", self._health())
        self._teller.took("heartbeat", time.monotonic() - began)

    async def live(self) -> None:
        """Beats and obeys until it is told to stop."""
        works = [asyncio.create_task(self._beat_on()), asyncio.create_task(self._obey_on())]
        try:
            await self._stopped.wait()
        finally:
            for task in (*works, *self._underway.values()):
                task.cancel()
            await asyncio.gather(*works, *self._underway.values(), return_exceptions=True)
            self._client.close()

    async def _beat_on(self) -> None:
        backoff = Backoff()
        # Machines boot at moments of their own.
        await asyncio.sleep(self._luck.uniform(0, self._interval_s))
        while True:
            try:
                # With its farewell its token dies, and a beat of the same moment would be refused.
                if not self._is_leaving:
                    await self.beat()
                backoff.reset()
                pause_s = self._interval_s
            except Failed as exc:
                pause_s = self._note(exc, backoff)
            await asyncio.sleep(pause_s)

    async def _obey_on(self) -> None:
        backoff = Backoff()
        while True:
            try:
                answer = await self._ask("GET", f"/api/commands?wait={POLL_S}", within_s=POLL_PATIENCE_S)
                for command in answer.json()["commands"]:
                    self._take(command["id"], command["kind"])
                backoff.reset()
                if self._underway:
                    # Their commands are delivered at every poll, until they have a result. With that of a farewell
                    # the token dies, and a poll of the same moment would be refused.
                    pause_s = None if self._is_leaving else ERRAND_PAUSE_S
                    await asyncio.wait(self._underway.values(), timeout=pause_s)
            except Failed as exc:
                await asyncio.sleep(self._note(exc, backoff))

    def _take(self, command_id: int, kind: str) -> None:
        # A machine that leaves leaves clean: it is told again.
        if command_id in self._underway or (kind == "stop" and self._underway):
            return
        self._is_leaving = kind == "stop"
        task = asyncio.create_task(self._obey(command_id, kind))
        self._underway[command_id] = task
        task.add_done_callback(lambda _: self._underway.pop(command_id, None))

    async def _obey(self, command_id: int, kind: str) -> None:
        path = f"/api/commands/{command_id}"
        try:
            if kind in _STEPS:
                await self._ask("POST", path, {"status": "running", "detail": _STEPS[kind]})
            if kind in _SAID:
                await asyncio.sleep(self._ways.work.draw(self._luck))
            await self._ask("POST", path, _result(kind))
        except Failed as exc:
            # Told again at the next delivery.
            self._teller.failed("machine", exc)
            return
        self._teller.count(f"command {kind}")
        if kind == "stop":
            self._stopped.set()
        elif kind == "reboot":
            self._boot += 1
            with contextlib.suppress(Failed):
                await self.enrol()
                await self.beat()

    async def _ask(self, method: str, path: str, body: object = None, *, within_s: float | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await self._client.ask(
            method, path, body, headers=headers, within_s=within_s or max(self._ways.patience_s, 1.0)
        )
        if answer.status != 200:
            raise Failed(f"{path.partition('?')[0].rstrip('0123456789')} {answer.status}", answer.problem())
        return answer

    def _note(self, exc: Failed, backoff: Backoff) -> float:
        """Counts what went wrong; returns for how long a real agent would wait now, in seconds."""
        self._teller.failed("machine", exc)
        status = exc.kind.rpartition(" ")[2]
        is_refusal = status.isdigit() and 400 <= int(status) < 500 and status != "429"
        return backoff.pause_s(Refused(int(status), str(exc)) if is_refusal else ServerAway(str(exc)))

    def _health(self) -> dict[str, Any]:
        luck = self._luck
        gpu = {
            "index": 0,
            "name": "NVIDIA swarm",
            "uuid": f"GPU-{self.hostname}",
            "utilisation_pct": round(luck.uniform(0, 100), 1),
            "memory_used_mb": round(luck.uniform(1_000, 23_000)),
            "memory_total_mb": 24_576,
            "temperature_c": round(luck.uniform(40, 70)),
        }
        return {
            "boot_id": f"swarm-{self._boot}",
            "phase": "ready",
            "health": "healthy",
            "reasons": [],
            "gpus": [gpu],
            "cpu_pct": round(luck.uniform(0, 60), 1),
            "memory_pct": round(luck.uniform(10, 60), 1),
            "disk_free_pct": 70.0,
            "disk_free_gb": 350.0,
            "sent_at": datetime.now(UTC).isoformat(),
        }


def _result(kind: str) -> dict[str, Any]:
    if kind in _SAID:
        return {"status": "succeeded", "detail": _SAID[kind], "data": _DATA.get(kind, {})}
    return {"status": "failed", "detail": f"a machine of a swarm cannot do '{kind}'", "data": {}}
