"""Claim: one field, one click."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from nicegui import ui

from backend.api.auth import get_house
from backend.house import House
from backend.live.changes import ChangeSet, Snapshot
from backend.services.claims import list_claims
from backend.services.views import PoolView
from backend.states import Access, PoolStatus
from lablink_ui.frame import page_at, public_frame
from lablink_ui.pages.entrances import Entrance, draw_fields, draw_sign_in, draw_sign_out, look_at
from lablink_ui.parts import link_button, tag, text
from lablink_ui.visits import follow
from lablink_ui.words import count, people


@page_at("/join/{pool}")
async def join(request: Request, pool: str) -> Response | None:
    """The claim page of a pool."""
    house = get_house(request)
    mine = await list_claims(house.db, owner_hash=request.state.owner_hash, only_open=True)
    if any(claim.pool == pool for claim in mine):
        return RedirectResponse("/seat", status_code=303)
    found = house.live.snapshot.find_pool(pool)
    if found is None or found.status is PoolStatus.CLOSED:
        await _say_no(house, pool, found)
        return None
    entrance = await look_at(request, house, found)
    is_known = entrance.access is Access.OIDC and entrance.email is not None
    if entrance.refusal or (entrance.access is Access.OIDC and not is_known):
        await _ask_for_proof(house, pool, entrance)
        return None
    with public_frame("Get your machine") as frame:
        with tag("form", "card pad", data_pool=pool) as form:
            draw_fields(entrance)
            text("div", "", "error", data_testid="claim-error", role="alert")
            tag("button", "button primary big", "Get my machine", type="submit", data_testid="claim-submit")
        form.on("submit", js_handler="(e) => { e.preventDefault(); window.lablinkClaim(e.target); }")
        if is_known:
            draw_sign_out()

        def show(snapshot: Snapshot, _: ChangeSet | None = None) -> None:
            if _is_open(snapshot, pool):
                frame.subtitle.say(_outlook(snapshot, found))
            else:
                ui.navigate.reload()

        await follow(house, frame, start=show, on_changes=show)
    return None


async def _ask_for_proof(house: House, pool: str, entrance: Entrance) -> None:
    if entrance.access is not Access.OIDC:
        title, words = "You need your personal link", entrance.refusal
    elif entrance.refusal:
        title, words = "Not for your account", entrance.refusal
    else:
        title, words = "Sign in first", f"Workshop {pool} is for members of your organisation."
    with public_frame(title) as frame:
        frame.subtitle.say(words)
        if entrance.access is Access.OIDC:
            draw_sign_in(house, pool)
        else:
            link_button("Enter another code", "/", classes="big")
        if entrance.email:
            draw_sign_out()
        await follow(house, frame)


async def _say_no(house: House, pool: str, found: PoolView | None) -> None:
    title = "No such workshop" if found is None else "This workshop is closed"
    with public_frame(title) as frame:
        if found is None:
            frame.subtitle.say(f"Nothing is called '{pool[:40]}' here. Check the link or the code with your organiser.")
        else:
            frame.subtitle.say("It takes nobody new at the moment. This page lets you in once it opens.")
        link_button("Enter another code", "/", classes="big")

        def show(snapshot: Snapshot, _: ChangeSet | None = None) -> None:
            if _is_open(snapshot, pool):
                ui.navigate.reload()

        await follow(house, frame, start=show, on_changes=show)


def _is_open(snapshot: Snapshot, pool: str) -> bool:
    found = snapshot.find_pool(pool)
    return found is not None and found.status is PoolStatus.OPEN


def _outlook(snapshot: Snapshot, pool: PoolView) -> str:
    """What somebody who clicks now may expect."""
    found = snapshot.count_pool(pool.id)
    if found.line:
        return f"Workshop {pool.name}: {people(found.line)} in line. Join it: you are let in by itself."
    if found.free:
        return f"Workshop {pool.name}: {count(found.free, 'machine')} free right now."
    return f"Workshop {pool.name}: none is free right now; you get the next one."
