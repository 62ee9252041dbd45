"""One id follows a claim: from the answer through the event and the command to the server's log and the agent's."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import text

from tests.harness.agents import join
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server

GIVEN = "proxy-4bf92f3577b34da6"


def logged(server: Server) -> list[dict[str, str]]:
    """The server's log, one JSON object a line; what Postgres and the greeting print besides is none."""
    return [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]


async def test_the_id_of_a_claim_is_in_the_answer_the_events_the_command_and_the_log(web_server: Server) -> None:
    pool = await make_pool(web_server, "traced")
    async with web_server.client() as client:
        (agent,) = await join(web_server, client, 1, prefix="traced", pool=pool)
        body = {"email": "ada@lab.org", "pool": pool}
        answer = await client.post("/api/request_vm", json=body, headers={"X-Request-ID": GIVEN})
        assert (answer.status_code, answer.headers["x-request-id"]) == (201, GIVEN)
        (command,) = await agent.list_commands()
    assert command["payload"]["request_id"] == GIVEN
    async with database_of(web_server) as db, db.transaction() as session:
        query = text("SELECT kind FROM events WHERE data ->> 'request_id' = :id ORDER BY id")
        kinds = list(await session.scalars(query, {"id": GIVEN}))
    assert kinds == ["vm.in-use", "claim.preparing"]
    said = [line["message"] for line in logged(web_server) if line.get("request_id") == GIVEN]
    assert [each.partition(" in ")[0] for each in said] == ["POST /api/request_vm 201"]


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with space and \u00e9", 'a"quote-in-it'])
async def test_an_id_of_another_form_is_replaced(web_server: Server, given: str) -> None:
    async with web_server.client() as client:
        answer = await client.get("/healthz", headers={"X-Request-ID": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


async def test_a_path_that_opens_a_seat_is_not_logged(web_server: Server) -> None:
    async with web_server.client() as client:
        answer = await client.post("/seat/open/a-link-that-opens-a-seat")
        await client.put("/nowhere/a-secret-of-somebody")
    mine = [line for line in logged(web_server) if line.get("request_id") == answer.headers["x-request-id"]]
    assert len(mine) == 1
    assert not [line for line in logged(web_server) if "a-secret-of" in str(line) or "a-link-that" in str(line)]
