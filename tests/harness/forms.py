"""Forms posted over plain HTTP, as a browser does it: the page first, then its token with the fields."""

from __future__ import annotations

import re

import httpx

from backend.api.csrf import FIELD
from tests.harness.server import PASSWORD

_TOKEN = re.compile(rf'"name":"{FIELD}","value":"([^"]+)"')


async def form_token(client: httpx.AsyncClient, page: str) -> str:
    """The token of the forms on a page; the client keeps the cookie that it is for."""
    answer = await client.get(page)
    found = _TOKEN.search(answer.text.replace("&quot;", '"').replace("\\", ""))
    assert found, answer.text[:2_000]
    return found[1]


async def post_form(client: httpx.AsyncClient, page: str, action: str, **fields: str) -> httpx.Response:
    """Opens a page and posts its form."""
    data = {FIELD: await form_token(client, page), **fields}
    origin = f"{client.base_url.scheme}://{client.base_url.netloc.decode()}"
    return await client.post(action, data=data, headers={"Origin": origin})


async def sign_in(client: httpx.AsyncClient, user: str = "admin", password: str = PASSWORD) -> httpx.Response:
    """Signs in by the form of /login."""
    return await post_form(client, "/login", "/login", user=user, password=password)
