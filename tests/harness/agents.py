"""Agents by hand: they speak the wire as real ones do, hundreds of them in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.harness.server import Server, gather_all

HEALTHY = {
    "phase": "ready",
    "health": "healthy",
    "reasons": [],
    "gpus": [],
    "cpu_pct": 1.0,
    "memory_pct": 2.0,
    "disk_free_pct": 90.0,
}


@dataclass
class HandAgent:
    """One machine that enrolled itself."""

    hostname: str
    token: str
    client: httpx.AsyncClient
    boot_id: str = "boot-1"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def beat(self, **changes: Any) -> httpx.Response:
        """Sends a heartbeat."""
        body = {"boot_id": self.boot_id, **HEALTHY, **changes}
        return await self.client.post("/api/heartbeat", json=body, headers=self.headers)

    async def list_commands(self, wait: float = 0) -> list[dict[str, Any]]:
        """Polls for commands."""
        answer = await self.client.get(f"/api/commands?wait={wait}", headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()["commands"]

    async def finish(self, command_id: int, status: str = "succeeded", detail: str = "") -> httpx.Response:
        """Reports a result."""
        body = {"status": status, "detail": detail, "data": {}}
        return await self.client.post(f"/api/commands/{command_id}", json=body, headers=self.headers)

    async def obey(self, wait: float = 0) -> list[str]:
        """Polls once and reports success for all there is; returns the kinds."""
        commands = await self.list_commands(wait)
        for command in commands:
            assert (await self.finish(command["id"])).status_code == 200
        return [command["kind"] for command in commands]


async def make_tokens(server: Server, count: int, pool: str = "default") -> list[str]:
    """Enrolment tokens, by API."""
    answer = await server.api.post("/api/admin/enrolments", json={"pool": pool, "count": count})
    assert answer.status_code == 201, answer.text
    return answer.json()["tokens"]


async def enrol(client: httpx.AsyncClient, token: str, hostname: str, boot_id: str = "boot-1") -> httpx.Response:
    """Announces a machine."""
    body = {"hostname": hostname, "boot_id": boot_id, "agent_version": "1"}
    return await client.post("/api/vm_startup", json=body, headers={"Authorization": f"Bearer {token}"})


async def join(
    server: Server, client: httpx.AsyncClient, count: int, *, prefix: str = "own", pool: str = "default"
) -> list[HandAgent]:
    """Enrols machines and has them available."""
    tokens = await make_tokens(server, count, pool)

    async def one(number: int, token: str) -> HandAgent:
        hostname = f"{prefix}-{number:03d}"
        answer = await enrol(client, token, hostname)
        assert answer.status_code == 200, answer.text
        agent = HandAgent(hostname, answer.json()["agent_token"], client)
        beat = await agent.beat()
        assert beat.status_code == 200, beat.text
        return agent

    return await gather_all(*(one(number, token) for number, token in enumerate(tokens)))
