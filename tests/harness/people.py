"""People of the console for tests: made by invite, signed in by HTTP."""

from __future__ import annotations

import itertools

import httpx

from backend.services.actor import Actor
from backend.services.invites import create_invite
from backend.states import Role
from tests.harness.forms import post_form, sign_in
from tests.harness.pools import database_of
from tests.harness.server import Server

PEOPLES_PASSWORD = "a password of the people"
_names = (f"person-{number}" for number in itertools.count())


async def make_person(server: Server, role: Role) -> str:
    """A user of this role with ``PEOPLES_PASSWORD``; returns the name."""
    name = next(_names)
    async with database_of(server) as db:
        _, secret = await create_invite(db, name, role, actor=Actor.admin("test"))
    async with server.client() as client:
        page = f"/invite/{secret}"
        answer = await post_form(client, page, page, password=PEOPLES_PASSWORD, again=PEOPLES_PASSWORD)
        assert answer.headers["location"] == f"/login?welcome=1&user={name}", answer.headers
    return name


async def enter(server: Server, client: httpx.AsyncClient, name: str, password: str = PEOPLES_PASSWORD) -> str:
    """Signs this client in; returns where it was sent."""
    answer = await sign_in(client, name, password)
    return str(answer.headers["location"])
