"""Pages of the console that admins leave open."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from lablink_ui.swarm.http import Client, Failed
from lablink_ui.swarm.page import Page
from lablink_ui.swarm.target import Target
from lablink_ui.swarm.telling import Teller

USER = "admin"
PLACES = ("/admin/instances", "/admin", "/admin/fleet", "/admin/events")


async def sign_in(client: Client, password: str) -> None:
    """Signs a browser in, by the form on the page.

    Raises:
        Failed: it was refused.
    """
    page = Page(client, on_problem=lambda _: None)
    await page.open("/login")
    try:
        fields = {"user": USER, "password": password, "form_token": page.hidden("form_token")}
    finally:
        await page.close()
    headers = {"Origin": client.target.origin, "Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.ask("POST", "/login", urlencode(fields).encode(), headers=headers)
    if answer.status != 303 or answer.headers.get("location", "").startswith("/login"):
        raise Failed("sign-in", "the admin's password or the form was refused")


async def watch(target: Target, cookies: dict[str, str], number: int, teller: Teller, leaving: asyncio.Event) -> None:
    """One page of the console, in a browser that is signed in, open until all is over."""
    client = Client(target)
    client.cookies |= cookies
    page = Page(client, on_problem=lambda exc: teller.failed("admin", exc))
    place = PLACES[number % len(PLACES)]
    try:
        teller.took("admin page", await page.open(place))
        if page.path.startswith("/login"):
            raise Failed("signed out", f"{place} leads to the sign-in page")
        teller.count("pages")
        await leaving.wait()
        if not page.is_connected or not page.path.startswith(place):
            raise Failed(
                "page did not stay",
                f"{place} is at {page.path} now, and {'' if page.is_connected else 'not '}connected",
            )
        teller.count("admin updates", page.updates)
    except Failed as exc:
        teller.failed("admin", exc)
    finally:
        await page.close()
        client.close()
