"""Forms posted over plain HTTP carry a token that we drew for this very browser."""

from __future__ import annotations

from backend.api.csrf import FIELD
from tests.harness.forms import form_token, post_form, sign_in
from tests.harness.server import PASSWORD

RIGHT = {"user": "admin", "password": PASSWORD}


async def test_a_form_without_its_token_or_with_another_browsers_signs_nobody_in(web_server) -> None:
    origin = {"Origin": web_server.url}
    async with web_server.client() as mine, web_server.client() as other:
        token, strange = await form_token(mine, "/login"), await form_token(other, "/login")
        assert token != strange
        for given in ({}, {FIELD: ""}, {FIELD: strange}, {FIELD: token[:-1]}, {FIELD: "é"}):
            answer = await mine.post("/login", data={**RIGHT, **given}, headers=origin)
            assert answer.headers["location"].startswith("/login?error=wrong_form"), given
        without_cookie = web_server.client()
        answer = await without_cookie.post("/login", data={**RIGHT, FIELD: token}, headers=origin)
        assert answer.headers["location"].startswith("/login?error=wrong_form")
        await without_cookie.aclose()
        answer = await mine.post("/login", data={**RIGHT, FIELD: token}, headers=origin)
        assert answer.headers["location"] == "/admin"


async def test_nobody_is_signed_out_by_another_sites_page(web_server) -> None:
    async with web_server.client() as client:
        await sign_in(client)
        token = await form_token(client, "/admin")
        for headers, data in (
            ({"Origin": "https://evil.example"}, {FIELD: token}),
            ({}, {FIELD: token}),
            ({"Origin": web_server.url}, {}),
        ):
            assert (await client.post("/logout", data=data, headers=headers)).status_code == 403
        assert (await client.get("/api/admin/instances")).status_code == 200
        assert (await post_form(client, "/admin", "/logout")).headers["location"] == "/login"
        assert (await client.get("/api/admin/instances")).status_code == 401


async def test_a_form_of_a_million_fields_is_refused(web_server) -> None:
    async with web_server.client() as client:
        token = await form_token(client, "/login")
        content = f"{FIELD}={token}&" + "a=1&" * 100_000
        headers = {"Origin": web_server.url, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await client.post("/login", content=content, headers=headers)
        assert answer.headers["location"].startswith("/login?error=wrong_form")
