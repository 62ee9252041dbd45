"""The API keeps to its own description, whoever asks and whatever is sent (schemathesis, with fixed seeds)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import given as for_each
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from backend.live.command_waits import MAX_WAIT_S
from backend.models import ApiToken
from backend.services.actor import Actor
from backend.services.pools import PoolSpec, ensure_pool, set_pool_open
from backend.services.tokens import hash_token
from backend.states import Role
from tests.harness.agents import join, make_tokens
from tests.harness.forms import sign_in
from tests.harness.pools import database_of
from tests.harness.seats import Seat
from tests.harness.server import API_TOKEN, Server

EXAMPLES = 3
TOKENS = {"viewer": "a-token-of-somebody-who-only-looks", "operator": "a-token-of-somebody-who-runs-it"}
CREDENTIALS = ("nothing", "seat", "agent", "admin")
# What each may do is nearly what one of the others may.
FURTHER = ("unknown", "browser", "key", "enrolment", "viewer", "operator", "session")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
OPEN_POOL, CLOSED_POOL = "described", "closed"


@pytest.fixture(scope="module")
async def described_server(tmp_path_factory: pytest.TempPathFactory):
    """A server with an open pool, a closed one, and tokens of each role. Wrong tokens are tried far too often here."""
    settings = ("server.sign_in_attempts=20", "rehearsals.replay_most_s=0")
    server = await Server(tmp_path_factory.mktemp("described") / "home", *settings).start()
    async with database_of(server) as db:
        for name in (OPEN_POOL, CLOSED_POOL):
            await ensure_pool(
                db, name, PoolSpec(terminal=True, crd=True, claim_duration_s=3_600), actor=Actor.admin("test")
            )
        await set_pool_open(db, CLOSED_POOL, is_open=False, actor=Actor.admin("test"))
        async with db.transaction() as session:
            for role, token in TOKENS.items():
                session.add(ApiToken(name=role, token_hash=hash_token(token), role=Role(role), created_at=db.now()))
    yield server
    await server.close()


async def headers_of(server: Server, credential: str) -> dict[str, str]:
    """What somebody with this credential sends along."""
    if credential == "nothing":
        return {}
    if credential == "browser":
        async with server.client() as client:
            await client.get("/")
            return {"Cookie": f"lablink-browser={client.cookies['lablink-browser']}", "Origin": server.url}
    if credential in {"seat", "key"}:
        async with server.client() as client:
            (agent,) = await join(server, client, 1, prefix=credential, pool=OPEN_POOL)
            seat = await Seat(server, client).request(f"{credential}@lab.org", OPEN_POOL)
            await agent.obey()
            return (
                {"Authorization": f"Bearer {seat.key}"}
                if credential == "key"
                else {"Cookie": seat.cookie, **seat.headers}
            )
    if credential == "session":
        async with server.client() as client:
            await sign_in(client)
            return {"Cookie": f"lablink-session={client.cookies['lablink-session']}", "Origin": server.url}
    if credential == "agent":
        async with server.client() as client:
            (agent,) = await join(server, client, 1, prefix="described", pool=OPEN_POOL)
        return agent.headers
    tokens = {**TOKENS, "admin": API_TOKEN, "unknown": "nobody-knows-this-token-at-all"}
    token = tokens.get(credential) or (await make_tokens(server, 1, OPEN_POOL))[0]
    return {"Authorization": f"Bearer {token}"}


def tame(case: schemathesis.Case) -> None:
    """Makes it mean something: pools that there are, and no long polls."""
    if isinstance(case.body, dict) and isinstance(case.body.get("pool"), str):
        case.body["pool"] = CLOSED_POOL if case.path.endswith("/create") else OPEN_POOL
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 0 <= wait <= MAX_WAIT_S:
        case.query["wait"] = 0


@pytest.fixture(scope="module")
def cases(described_server: Server) -> list[schemathesis.Case]:
    """Some right and wrong requests of every operation. To think them up is most of the work: once for all who ask."""
    description = httpx.get(f"{described_server.url}/api/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(description)
    return [case for result in schema.get_all_operations() for case in think_up(result.ok())]


def think_up(operation: Any) -> list[schemathesis.Case]:
    right, wrong = (operation.as_strategy(generation_mode=mode) for mode in GenerationMode)
    found: list[schemathesis.Case] = []

    @seed(20_261_124)
    @for_each(case=st.one_of(right, wrong))
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def note(case: schemathesis.Case) -> None:
        tame(case)
        found.append(case)

    run: Callable[[], None] = note
    run()
    assert found, operation.label
    return found


@pytest.mark.parametrize(
    "credential", [*CREDENTIALS, *(pytest.param(each, marks=pytest.mark.long) for each in FURTHER)]
)
async def test_no_answer_contradicts_the_description(
    described_server: Server, cases: list[schemathesis.Case], credential: str
) -> None:
    headers = await headers_of(described_server, credential)
    answers: set[tuple[str, int]] = set()
    with requests.Session() as session:
        session.trust_env = False
        for case in cases:
            response = case.call(base_url=described_server.url, session=session, headers=headers)
            case.validate_response(response, checks=CHECKS)
            answers.add((case.operation.label, response.status_code))
    assert {200, 422} & {status for _, status in answers}
    said = {status for label, status in answers if label == "GET /api/admin/instances"}
    assert said & {200} if credential in {*TOKENS, "admin", "session"} else said <= {401, 422, 429}
    own = {status for label, status in answers if label == "GET /api/seat"}
    assert bool(own & {200}) == (credential in {"seat", "key"})
