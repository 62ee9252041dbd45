"""Guessing over HTTP is stopped within 20 wrong tries and told when to return; what is right passes all the same."""

from __future__ import annotations

import httpx
import pytest

from tests.harness.agents import HEALTHY, enrol, join, make_tokens
from tests.harness.server import API_TOKEN
from tests.web.test_proxies import client_from

GUESSER = "127.0.0.9"


async def guess(client: httpx.AsyncClient, kind: str, token: str) -> httpx.Response:
    """One try of something that opens a door."""
    headers = {"Authorization": f"Bearer {token}"}
    if kind == "api token":
        return await client.get("/api/admin/instances", headers=headers)
    if kind == "agent token":
        return await client.post("/api/heartbeat", json={"boot_id": "boot-1", **HEALTHY}, headers=headers)
    if kind == "enrolment token":
        return await enrol(client, token, f"guest-{token[-6:].lower().replace('_', 'x').strip('-')}")
    return await client.get(f"/seat/open/{token}")


@pytest.mark.parametrize("kind", ["api token", "agent token", "enrolment token", "seat link"])
async def test_guessing_is_stopped_and_hinders_nobody_who_is_right(web_server, kind: str) -> None:
    async with client_from(web_server, GUESSER) as guesser, web_server.client() as elsewhere:
        (agent,) = await join(web_server, elsewhere, 1, prefix=kind.replace(" ", "-"))
        answers = [await guess(guesser, kind, f"wrong-{n}") for n in range(22)]
        statuses = [answer.status_code for answer in answers]
        assert statuses == [401] * statuses.count(401) + [429] * statuses.count(429)
        assert 1 <= statuses.count(401) <= 20
        for refused in answers[statuses.count(401) :]:
            assert 0 < int(refused.headers["retry-after"]) <= 301
            assert refused.json()["error"]["code"] == "throttled"
        # From elsewhere nothing is refused that was not wrong; and from the very same place nothing that is right.
        assert (await guess(elsewhere, kind, "wrong")).status_code == 401
        right = {
            "api token": [API_TOKEN],
            "agent token": [agent.token],
            "enrolment token": await make_tokens(web_server, 30),
            "seat link": [],
        }[kind]
        assert {(await guess(guesser, kind, token)).status_code for token in right} <= {200}


async def test_a_machine_that_left_and_still_asks_guesses_nothing(web_server) -> None:
    async with client_from(web_server, "127.0.0.10") as machine:
        (agent,) = await join(web_server, machine, 1, prefix="left")
        await web_server.api.post("/api/admin/destroy", json={"hostnames": [agent.hostname]})
        await agent.obey()
        answers = [await guess(machine, "agent token", agent.token) for _ in range(22)]
        assert {answer.status_code for answer in answers} == {401}
        assert (await guess(machine, "agent token", "wrong")).status_code == 401
