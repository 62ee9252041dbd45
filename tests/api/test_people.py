"""The people by HTTP: roles on every route, tokens, the history as a file, the two steps of a sign-in."""

from __future__ import annotations

import csv
import io
import json

import pyotp
import pytest

from backend.keys import load_keys
from backend.services.actor import Actor
from backend.services.people import get_user
from backend.services.second_step import begin_second_step, confirm_second_step
from backend.services.throttles import Throttle
from backend.states import Role
from tests.api.test_bad_input import error_of
from tests.harness.forms import post_form
from tests.harness.people import PEOPLES_PASSWORD, enter, make_person
from tests.harness.pools import database_of
from tests.harness.server import Server


async def make_token(server: Server, role: str, name: str, **more: object) -> dict[str, str]:
    answer = await server.api.post("/api/admin/tokens", json={"name": name, "role": role, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_viewers_token_and_session_change_nothing_on_any_route(shared_server: Server) -> None:
    token = (await make_token(shared_server, "viewer", "looks"))["token"]
    routes = (await shared_server.api.get("/api/openapi.json")).json()["paths"]
    changing = [
        (method, path)
        for path, methods in routes.items()
        for method in methods
        if path.startswith("/api/admin") and method not in {"get", "head"}
    ]
    assert len(changing) >= 5
    name = await make_person(shared_server, Role.VIEWER)
    async with shared_server.client(token=token) as by_token, shared_server.client() as by_session:
        assert await enter(shared_server, by_session, name) == "/admin"
        by_session.headers["Origin"] = shared_server.url
        for client in (by_token, by_session):
            for method, path in changing:
                asked = path.replace("{token_id}", "1").replace("{operation_id}", "1")
                answer = await client.request(method, asked, json={})
                assert error_of(answer) == (403, "forbidden"), (method, path, answer.text)
            for path in ("/api/admin/instances", "/api/admin/events", "/api/admin/tokens"):
                assert (await client.get(path)).status_code == 200


async def test_an_operators_token_launches_but_makes_no_tokens(shared_server: Server) -> None:
    token = (await make_token(shared_server, "operator", "runs"))["token"]
    async with shared_server.client(token=token) as client:
        for path, body in (
            ("/api/admin/tokens", {"name": "mine", "role": "admin"}),
            ("/api/admin/enrolments", {"pool": "default", "count": 1}),
        ):
            assert error_of(await client.post(path, json=body)) == (403, "forbidden")
        answer = await client.post("/api/admin/destroy", json={"hostnames": ["no-such-vm"]})
        assert error_of(answer) == (404, "unknown_vm")


async def test_a_token_is_shown_once_lives_and_is_revoked(shared_server: Server) -> None:
    made = await make_token(shared_server, "admin", "once", days=30)
    secret = made["token"]
    listed = (await shared_server.api.get("/api/admin/tokens")).json()["tokens"]
    assert secret not in json.dumps(listed)
    mine = next(each for each in listed if each["name"] == "once")
    assert (mine["role"], mine["created_by"], mine["last_used_at"]) == ("admin", "admin:token:environment", None)
    assert mine["expires_at"] > mine["created_at"]
    async with shared_server.client(token=secret) as client:
        assert (await client.get("/api/admin/instances")).status_code == 200
        child = (await client.post("/api/admin/tokens", json={"name": "child", "role": "admin"})).json()["token"]
        assert (await shared_server.api.delete(f"/api/admin/tokens/{made['id']}")).status_code == 204
        assert error_of(await client.get("/api/admin/instances"))[0] == 401
    async with shared_server.client(token=child) as client:
        assert error_of(await client.get("/api/admin/instances"))[0] == 401
    assert error_of(await shared_server.api.delete("/api/admin/tokens/999999"))[0] == 404
    for body in ({"name": "x"}, {"name": "x", "role": "god"}, {"name": "x", "role": "admin", "days": "1"}):
        assert error_of(await shared_server.api.post("/api/admin/tokens", json=body))[0] == 422


async def test_the_history_leaves_as_json_csv_and_json_lines(shared_server: Server) -> None:
    await make_token(shared_server, "viewer", "for-history")
    asked = "/api/admin/events?group=people&words=for-history"
    (event,) = (await shared_server.api.get(asked)).json()["events"]
    assert event["message"] == "The API token for-history was made, as viewer"
    assert event["actor"] == "admin:token:environment"
    assert event["address"] == "127.0.0.1"
    as_csv = await shared_server.api.get(f"{asked}&format=csv")
    assert as_csv.headers["content-type"].startswith("text/csv")
    assert as_csv.headers["content-disposition"].startswith('attachment; filename="lablink-events-')
    (row,) = csv.DictReader(io.StringIO(as_csv.text))
    assert row["message"] == event["message"]
    assert json.loads((await shared_server.api.get(f"{asked}&format=jsonl")).text) == event
    later = await shared_server.api.get(f"{asked}&after_id={event['id']}")
    assert later.json() == {"events": []}
    for wrong in ("format=xml", "since=yesterday", "group=aliens", "limit=0", "after_id=-1", "words=%00"):
        assert error_of(await shared_server.api.get(f"/api/admin/events?{wrong}"))[0] == 422


async def test_the_page_exports_for_whoever_is_signed_in_and_nobody_else(shared_server: Server) -> None:
    name = await make_person(shared_server, Role.VIEWER)
    path = f"/admin/events/export?format=csv&words={name}"
    async with shared_server.client() as client:
        assert (await client.get(path)).headers["location"].startswith("/login")
        await enter(shared_server, client, name)
        rows = list(csv.DictReader(io.StringIO((await client.get(path)).text)))
    assert [row["kind"] for row in rows] == ["invite.created", "user.created", "user.signed_in"]


async def test_a_sign_in_with_a_second_step_needs_both(shared_server: Server) -> None:
    name = await make_person(shared_server, Role.VIEWER)
    keys, actor, throttle = load_keys(shared_server.home), Actor.admin(name), Throttle()
    async with database_of(shared_server) as db:
        user_id = (await get_user(db, name)).id
        setup = await begin_second_step(db, user_id, PEOPLES_PASSWORD, keys=keys, throttle=throttle, actor=actor)
        app, now = pyotp.TOTP(setup.secret), int(db.now().timestamp())
        used = app.at(now)
        # The next code, which a phone whose clock is ahead shows already.
        code = app.at(now + 30)
        await confirm_second_step(db, user_id, used, keys=keys, throttle=throttle, actor=actor)
    async with shared_server.client() as client:
        assert (await client.get("/login/code")).headers["location"].startswith("/login?error=step_expired")
        assert await enter(shared_server, client, name) == "/login/code?next=/admin"
        assert (await client.get("/api/admin/instances")).status_code == 401
        wrong = await post_form(client, "/login/code", "/login/code", code=used)
        assert wrong.headers["location"].startswith("/login/code?error=wrong_code")
        foreign = await client.post("/login/code", data={"code": code}, headers={"Origin": "http://evil.example"})
        assert "wrong_origin" in foreign.headers["location"]
        right = await post_form(client, "/login/code", "/login/code", code=code)
        assert right.headers["location"] == "/admin"
        assert (await client.get("/api/admin/instances")).status_code == 200


@pytest.mark.parametrize("path", ["/login/code", "/invite/x"])
async def test_forms_of_other_sites_are_refused(shared_server: Server, path: str) -> None:
    async with shared_server.client() as client:
        for headers in ({}, {"Origin": "http://evil.example"}):
            answer = await client.post(path, data={"password": "x" * 20, "again": "x" * 20}, headers=headers)
            assert "error=wrong_origin" in answer.headers["location"]
