"""Machines by hand: they enrol and beat as real agents do, hundreds of them in one process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version

from lablink_ui.bench.loadgen import drive, request
from lablink_ui.bench.server import BenchServer

POOL = "default"
JOIN_AT_ONCE = 16
_HEALTHY = {
    "boot_id": "boot-1",
    "phase": "ready",
    "health": "healthy",
    "reasons": [],
    "gpus": [],
    "cpu_pct": 1.0,
    "memory_pct": 2.0,
    "disk_free_pct": 90.0,
}


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine that enrolled itself."""

    hostname: str
    token: str

    def beat(self) -> bytes:
        """A heartbeat, ready to be sent."""
        return request("POST", "/api/heartbeat", _HEALTHY, token=self.token)

    def poll(self, wait_s: int) -> bytes:
        """A long poll for commands, ready to be sent."""
        return request("GET", f"/api/commands?wait={wait_s}", token=self.token)


async def join(server: BenchServer, count: int, *, pool: str = POOL, prefix: str = "bench") -> list[Machine]:
    """Enrols machines and has them available.

    Raises:
        BenchFailed: one was refused.
    """
    tokens = (await server.ask("POST", "/api/admin/enrolments", {"pool": pool, "count": count}))["tokens"]
    hostnames = [f"{prefix}-{number:04d}" for number in range(count)]
    boots = [_boot(hostname, token) for hostname, token in zip(hostnames, tokens, strict=True)]
    enrolled = await drive(server.port, boots, at_once=JOIN_AT_ONCE)
    enrolled.check(200)
    machines = [
        Machine(hostname, shot.json()["agent_token"]) for hostname, shot in zip(hostnames, enrolled.shots, strict=True)
    ]
    (await drive(server.port, [machine.beat() for machine in machines], at_once=JOIN_AT_ONCE)).check(200)
    return machines


def _boot(hostname: str, token: str) -> bytes:
    body = {"hostname": hostname, "boot_id": _HEALTHY["boot_id"], "agent_version": version("lablink")}
    return request("POST", "/api/vm_startup", body, token=token)
