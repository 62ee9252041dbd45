"""No page and no request sends more statements because there is more to show."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from backend.services.actor import Actor
from backend.services.api_tokens import create_api_token
from backend.services.invites import create_invite
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.roster_text import RosterLine
from backend.services.rosters import import_roster
from backend.states import Role
from tests.harness.agents import HandAgent, join
from tests.harness.counting_server import HEADER
from tests.harness.forms import sign_in
from tests.harness.pools import database_of
from tests.harness.server import Server

ADMIN = Actor.admin("test")
FEW, MANY = 5, 20
PAGES = (
    "/admin",
    "/admin/instances",
    "/admin/instances/own0-000",
    "/admin/create",
    "/admin/operations",
    "/admin/events",
    "/admin/pools",
    "/admin/pools/default",
    "/admin/people",
    "/admin/people/admin",
    "/admin/account",
    "/",
    "/join/default",
    "/seat",
    "/login",
)
REQUESTS = ("/api/admin/instances", "/api/admin/pools/default/roster.csv", "/api/seat", "/api/seat/browsers")
# All of it: a claim with a machine free, and a heartbeat that says nothing new.
CLAIM, HEARTBEAT = 1, 0


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    home = tmp_path_factory.mktemp("counting") / "home"
    counting = Server(
        home,
        "pool.default.max=200",
        "agent.unreachable_after_s=3600",
        module="tests.harness.counting_server",
    )
    yield await counting.start()
    await counting.close()


async def test_no_page_and_no_request_sends_more_statements_for_more_rows(server: Server) -> None:
    async with server.client() as admin, server.client() as researcher, server.client() as agents:
        await sign_in(admin)
        machines = await fill(server, agents, FEW, "own0")
        await take_a_seat(server, researcher)
        with_few = await count_all(server, admin, researcher, machines[0])
        await fill(server, agents, MANY - FEW, "own1")
        assert await count_all(server, admin, researcher, machines[0]) == with_few
        assert with_few["POST /api/request_vm"] == CLAIM
        assert with_few["POST /api/heartbeat"] == HEARTBEAT


async def fill(server: Server, agents: httpx.AsyncClient, count: int, name: str) -> list[HandAgent]:
    """More of everything that pages list: machines, seats, events, pools, people, tokens, a roster."""
    machines = await join(server, agents, 2 * count, prefix=name)
    for number in range(count):
        await claim(agents, f"{name}-{number}")
    async with database_of(server) as db:
        for number in range(count):
            await ensure_pool(db, f"{name}-{number}", PoolSpec(), actor=ADMIN)
            await create_invite(db, f"{name}-{number}", Role.VIEWER, actor=ADMIN)
            await create_api_token(db, f"{name}-{number}", Role.VIEWER, actor=ADMIN)
        people = [RosterLine(f"{name}-{number}@lab.org", None) for number in range(count)]
        await import_roster(db, "default", people, actor=ADMIN)
    return machines


async def count_all(
    server: Server, admin: httpx.AsyncClient, researcher: httpx.AsyncClient, machine: HandAgent
) -> dict[str, int]:
    counted = {}
    for path in PAGES:
        client = researcher if path in {"/", "/join/default", "/seat"} else admin
        counted[path] = statements_of(await client.get(path, headers={"Accept": "text/html"}), path)
    for path in REQUESTS:
        client = admin if "admin" in path else researcher
        counted[path] = statements_of(await client.get(path), path)
    # Twice: the first one may be news.
    await machine.beat()
    counted["POST /api/heartbeat"] = statements_of(await machine.beat(), "heartbeat")
    counted["POST /api/request_vm"] = statements_of(
        await claim(machine.client, f"late-{len(await server.list_vms())}"), "claim"
    )
    return counted


async def take_a_seat(server: Server, researcher: httpx.AsyncClient) -> None:
    await researcher.get("/join/default")
    body = {"email": "ada@lab.org", "pool": "default"}
    answer = await researcher.post("/api/request_vm", json=body, headers={"Origin": server.url})
    assert answer.status_code == 201, answer.text


async def claim(client: httpx.AsyncClient, name: str) -> httpx.Response:
    return await client.post("/api/request_vm", json={"email": f"{name}@lab.org", "pool": "default"})


def statements_of(answer: httpx.Response, path: str) -> int:
    assert answer.status_code < 400, (path, answer.status_code, answer.text[:500])
    return int(answer.headers[HEADER])
