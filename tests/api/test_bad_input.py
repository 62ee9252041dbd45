"""Whatever comes in wrong gets the right status and a sentence, and changes nothing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.api.csrf import FIELD
from tests.harness.agents import HEALTHY, enrol, join, make_tokens
from tests.harness.forms import form_token, post_form, sign_in
from tests.harness.pools import make_pool
from tests.harness.server import PASSWORD, Server

BEAT = {"boot_id": "b", **HEALTHY}
_names = (f"bad{n}" for n in itertools.count())


def error_of(answer) -> tuple[int, str]:
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"pool": "default", "count": 1, "color": "red"}, 422, "color"),
        ({"pool": "default", "count": "1"}, 422, "count"),
        ({"pool": "default", "count": True}, 422, "count"),
        ({"pool": "default", "count": 1.5}, 422, "count"),
        ({"pool": "default"}, 422, "count"),
        ({"pool": "default", "count": 0}, 422, "count"),
        ({"pool": "default", "count": 100_000}, 422, "count"),
        ({"pool": "de\x00fault", "count": 1}, 422, "pool"),
        ({"pool": "nowhere", "count": 1}, 404, "nowhere"),
        ([], 422, ""),
        ("x", 422, ""),
    ],
)
async def test_a_bad_launch_names_the_field_and_launches_nothing(shared_server, body, status: int, field: str) -> None:
    before = await list_standing(shared_server)
    answer = await shared_server.api.post("/api/admin/create", json=body)
    assert error_of(answer)[0] == status
    assert field in answer.json()["error"]["message"]
    assert await list_standing(shared_server) == before


async def list_standing(server: Server) -> dict[str, tuple[str, str, str | None]]:
    """How each machine stands: those that others left there go on beating."""
    return {name: (vm["pool"], vm["status"], vm["email"]) for name, vm in (await server.list_vms()).items()}


async def test_a_body_that_is_not_json_is_told_so(shared_server) -> None:
    answer = await shared_server.api.post("/api/admin/create", content=b"{nonsense")
    assert error_of(answer) == (422, "invalid")
    assert "JSON" in answer.json()["error"]["message"]


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_of_10_mb_is_refused_before_it_is_read(shared_server, is_announced: bool) -> None:
    async def pieces():
        for _ in range(10):
            yield b"x" * 1_000_000

    content = b"x" * 10_000_000 if is_announced else pieces()
    async with shared_server.client() as client:
        answer = await client.post("/api/request_vm", content=content)
    assert error_of(answer) == (413, "too_large")


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/admin/nothing", "/api/v1/vm?x=1"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_an_unknown_route_answers_json(shared_server, method: str, path: str) -> None:
    answer = await shared_server.api.request(method, path)
    assert error_of(answer) == (404, "not_found")


async def test_a_wrong_method_answers_json(shared_server) -> None:
    assert error_of(await shared_server.api.get("/api/heartbeat"))[0] in {404, 405}


@pytest.mark.parametrize("hostname", ["a'b", "a\nb", 'a"b', "", "UP", "a" * 64, "a b", "../x", "ünï", 7, None])
async def test_a_bad_hostname_cannot_enrol(shared_server, hostname) -> None:
    (token,) = await make_tokens(shared_server, 1)
    async with shared_server.client() as client:
        answer = await enrol(client, token, hostname)
        assert error_of(answer)[0] == 422
        # Nothing was used up: the same token serves a proper name.
        assert (await enrol(client, token, next(_names))).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"phase": "asleep"},
        {"health": "fine"},
        {"cpu_pct": 101},
        {"cpu_pct": "1"},
        {"memory_pct": -1},
        {"reasons": "hot"},
        {"reasons": ["x"] * 21},
        {"gpus": [{"index": "0"}]},
        {"hostname": "other"},
        {"boot_id": ""},
        {"boot_id": "b" * 129},
        {"boot_id": "\ud800"},
    ],
)
async def test_a_bad_heartbeat_is_refused_and_stores_nothing(shared_server, changes) -> None:
    import json

    name = next(_names)
    async with shared_server.client() as client:
        (agent,) = await join(shared_server, client, 1, prefix=name)
        content = json.dumps({**BEAT, "cpu_pct": 77.0, **changes})
        answer = await client.post(
            "/api/heartbeat", content=content, headers={**agent.headers, "Content-Type": "application/json"}
        )
        assert error_of(answer)[0] == 422
        assert (await shared_server.list_vms())[agent.hostname]["cpu_pct"] == 1.0


async def test_a_token_that_is_missing_unknown_or_of_another_kind_opens_nothing(shared_server) -> None:
    (enrolment,) = await make_tokens(shared_server, 1)
    async with shared_server.client() as client:
        (agent,) = await join(shared_server, client, 1, prefix=next(_names))
        tokens = [None, "unknown", "x" * 5_000, enrolment, "-._~"]
        for token in tokens:
            headers = {"Authorization": f"Bearer {token}".encode()} if token is not None else {}
            answers = [
                await client.post("/api/heartbeat", json=BEAT, headers=headers),
                await client.get("/api/commands", headers=headers),
                await client.post("/api/logs", json={"source": "s", "lines": ["x"]}, headers=headers),
                await client.get("/api/admin/instances", headers=headers),
            ]
            assert {error_of(answer)[0] for answer in answers} <= {401, 429}
        assert error_of(await client.get("/api/admin/instances", headers=agent.headers))[0] in {401, 429}


async def test_an_agents_token_reads_and_writes_nothing_of_another_machine(shared_server) -> None:
    name = next(_names)
    pool = await make_pool(shared_server, name)
    async with shared_server.client() as client:
        mine, other = await join(shared_server, client, 2, prefix=name, pool=pool)
        await client.post("/api/request_vm", json={"email": "ada@lab.org", "pool": pool})
        holder = mine if await mine.list_commands() else other
        stranger = other if holder is mine else mine
        (command,) = await holder.list_commands()
        assert await stranger.list_commands() == []
        assert error_of(await stranger.finish(command["id"]))[0] == 404
        # The command is untouched: its own agent still has it to do.
        assert [each["id"] for each in await holder.list_commands()] == [command["id"]]
        # A body cannot name another machine.
        assert error_of(await stranger.beat(hostname=holder.hostname))[0] == 422


@pytest.mark.parametrize("path", ["abc", "-1", "0", "9" * 30, "1.5", "%00"])
async def test_an_operation_that_cannot_be_is_refused(shared_server, path: str) -> None:
    assert (await shared_server.api.get(f"/api/admin/operations/{path}")).status_code in {404, 422}


@pytest.mark.parametrize(
    "body", [{}, {"all": True}, {"pool": "default"}, {"hostnames": []}, {"all": False, "pool": "default"},
             {"hostnames": ["x"], "all": True, "pool": "default"}, {"hostnames": "x"}]
)  # fmt: skip
async def test_a_destroy_that_does_not_say_what_is_refused(shared_server, body) -> None:
    assert error_of(await shared_server.api.post("/api/admin/destroy", json=body))[0] == 422


async def test_destroying_an_unknown_machine_is_told_so(shared_server) -> None:
    answer = await shared_server.api.post("/api/admin/destroy", json={"hostnames": ["no-such-vm"]})
    assert error_of(answer) == (404, "unknown_vm")


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(["email", "pool", "code", "count", "hostname", "boot_id", "agent_version", "lines", "source"])


@given(
    st.sampled_from(
        ["/api/request_vm", "/api/admin/create", "/api/admin/destroy", "/api/admin/enrolments", "/api/vm_startup"]
    ),
    st.dictionaries(fields, anything, max_size=4) | anything,
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_body_whatever_breaks_the_server(shared_server, path: str, body) -> None:
    import json

    import httpx

    from tests.harness.server import API_TOKEN

    content = json.dumps(body)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {API_TOKEN}"}
    answer = httpx.post(shared_server.url + path, content=content, headers=headers, trust_env=False)
    assert answer.status_code < 500, (path, body, answer.text)
    assert answer.json()


async def test_the_openapi_description_holds_every_route_of_the_contract(shared_server) -> None:
    described = (await shared_server.api.get("/api/openapi.json")).json()["paths"]
    for method, path in [
        ("post", "/api/vm_startup"),
        ("post", "/api/heartbeat"),
        ("get", "/api/commands"),
        ("post", "/api/commands/{command_id}"),
        ("post", "/api/logs"),
        ("post", "/api/request_vm"),
        ("get", "/api/admin/instances"),
        ("post", "/api/admin/create"),
        ("post", "/api/admin/destroy"),
        ("get", "/api/admin/operations/{operation_id}"),
        ("post", "/api/admin/enrolments"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    ]:
        assert method in described[path], path


async def test_guessing_passwords_is_throttled_and_signing_out_ends_the_session(start_server) -> None:
    server = await start_server("server.sign_in_attempts=3")
    origin = {"Origin": server.url}
    async with server.client() as browser:
        right = {"user": "admin", "password": PASSWORD}
        assert (await browser.post("/login", data=right)).headers["location"].startswith("/login?error=wrong_origin")
        signed_in = await sign_in(browser)
        assert signed_in.headers["location"] == "/admin"
        cookie = signed_in.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        assert (await browser.get("/api/admin/instances")).status_code == 200
        created = await browser.post("/api/admin/create", json={"pool": "default", "count": 1})
        assert created.status_code == 403
        await post_form(browser, "/admin", "/logout")
    async with server.client(cookies={"lablink-session": signed_in.cookies["lablink-session"]}) as stale:
        assert (await stale.get("/api/admin/instances")).status_code == 401
    async with server.client() as guesser:
        data = {FIELD: await form_token(guesser, "/login"), "user": "admin"}
        answers = [
            await guesser.post("/login", data=data | {"password": f"guess {n}"}, headers=origin) for n in range(5)
        ]
        locations = [answer.headers["location"] for answer in answers]
        assert ["throttled" in location for location in locations] == [False] * 3 + [True] * 2
        # Told when to return: to programs, and on the page.
        assert 0 < int(answers[-1].headers["retry-after"]) <= 301
        assert "Try again in" in (await guesser.get(locations[-1])).text


LOGS = {"source": "workload", "lines": ["one", "two"], "stream": "s", "first_seq": 1, "ats_ms": [1, 2], "sent_at_ms": 2}


async def test_log_lines_that_cannot_be_are_refused_by_name_and_store_nothing(shared_server) -> None:
    wrong = [
        ({"source": ""}, "source"), ({"source": "x" * 65}, "source"), ({"source": "nul\x00"}, "source"),
        ({"lines": "one"}, "lines"), ({"lines": ["x"] * 1_001}, "lines"), ({"lines": ["x" * 16_001]}, "lines"),
        ({"first_seq": 0}, "first_seq"), ({"first_seq": 2**60}, "first_seq"), ({"first_seq": None}, "stream"),
        ({"stream": ""}, "stream"), ({"ats_ms": [1]}, "ats_ms"), ({"ats_ms": [-1, 2]}, "ats_ms"),
        ({"sent_at_ms": None}, "sent_at_ms"), ({"hostname": "another"}, "hostname"), ({"vm_id": 1}, "vm_id"),
    ]  # fmt: skip
    async with shared_server.client() as client:
        mine, other = await join(shared_server, client, 2, prefix=next(_names))

        async def log_of(agent) -> str:
            return (await shared_server.api.get(f"/api/admin/instances/{agent.hostname}/log")).text

        for changes, field in wrong:
            answer = await client.post("/api/logs", json={**LOGS, **changes}, headers=mine.headers)
            assert error_of(answer)[0] == 422, changes
            assert field in answer.json()["error"]["message"]
        huge = {"source": "workload", "lines": ["x" * 15_000] * 100}
        assert error_of(await client.post("/api/logs", json=huge, headers=mine.headers))[0] == 413
        assert await log_of(mine) == ""
        # What comes again after a lost answer is there once; the token says whose it is.
        for _ in range(2):
            assert (await client.post("/api/logs", json=LOGS, headers=mine.headers)).status_code == 200
        # A clock that is wrong by half a century is put right by when it was sent.
        one, two = (await log_of(mine)).splitlines()
        assert one.endswith(" INFO  workload one")
        assert not one.startswith("1970")
        assert two.endswith(" INFO  workload two")
        assert await log_of(other) == ""
