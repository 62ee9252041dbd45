"""The front door: a join code, or the way to one's own seat."""

from __future__ import annotations

import json

from fastapi import Request
from nicegui import ui

from backend.api.auth import get_address, get_house
from backend.errors import LabLinkError
from backend.services.claims import list_claims
from lablink_ui.frame import page_at, public_frame
from lablink_ui.pages.entrances import find_entrance
from lablink_ui.parts import Field, link_button, on_submit, tag, text
from lablink_ui.visits import follow


@page_at("/")
async def home(request: Request) -> None:
    """Anyone's first page."""
    house = get_house(request)
    mine = await list_claims(house.db, owner_hash=request.state.owner_hash, only_open=True)
    with public_frame("Find your machine") as frame:
        frame.subtitle.say(
            "Welcome back." if mine else "Enter the code your organiser gave you, or the key of your seat."
        )
        if mine:
            with tag("div", "card pad"):
                tag("h2", "", "You have a seat")
                tag("p", "sub", f"In {mine[0].pool}, as {mine[0].email}.")
                link_button("Go to my seat", "/seat", classes="primary big")
        with tag("form", "card pad", name="entrance") as form:
            if mine:
                tag("h2", "", "Join another workshop")
            code = Field(
                "Join code or seat key",
                name="code",
                hint="No code? Ask your organiser. A seat key opens your seat in this browser.",
                testid="join-code",
                autocomplete="off",
                autocapitalize="none",
                spellcheck="false",
                autofocus=not mine,
            )
            error = text("div", "", "error", role="alert")
            tag(
                "button",
                "button big" + ("" if mine else " primary"),
                "Continue",
                type="submit",
                data_testid="join-submit",
            )
        with tag("p", "sub"):
            tag("span", "", "You run the workshop? ")
            tag("a", "", "Sign in as an organiser", href="/admin")

        async def submit() -> None:
            try:
                target = await find_entrance(house, code.value, address=get_address(request))
            except LabLinkError as exc:
                error.say(exc.message)
                return
            error.say("")
            if target is None:
                # The browser itself asks: its cookie of this moment becomes the seat's.
                ui.run_javascript(f"lablinkOpenSeat(document.forms.entrance, {json.dumps(code.value)})")
            else:
                ui.navigate.to(target)

        on_submit(form, [code], submit)
        await follow(house, frame)
