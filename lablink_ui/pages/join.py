"""Claim: one field, one click."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from nicegui import ui

from backend.api.auth import get_house
from backend.live.changes import ChangeSet, Snapshot
from backend.services.claims import list_claims
from backend.states import PoolStatus, VmStatus
from lablink_ui.frame import public_frame
from lablink_ui.parts import Field, link_button, tag, text
from lablink_ui.visits import follow
from lablink_ui.words import count


@ui.page("/join/{pool}")
async def join(request: Request, pool: str) -> Response | None:
    """The claim page of a pool."""
    house = get_house(request)
    mine = await list_claims(house.db, owner_hash=request.state.owner_hash, only_open=True)
    if any(claim.pool == pool for claim in mine):
        return RedirectResponse("/seat", status_code=303)
    found = house.live.snapshot.find_pool(pool)
    if found is None or found.status is PoolStatus.CLOSED:
        title = "No such workshop" if found is None else "This workshop is closed"
        with public_frame(title) as frame:
            frame.subtitle.say("Check the link or the join code with your organiser.")
            link_button("Enter another code", "/", classes="big")
            await follow(house, frame, start=lambda _: None, on_changes=lambda *_: None)
        return None
    with public_frame("Get your machine") as frame:
        with tag("form", "card pad", data_pool=pool) as form:
            Field(
                "E-mail",
                name="email",
                kind="email",
                testid="claim-email",
                hint="Your organiser sees it beside your machine",
                autocomplete="email",
                required=True,
                autofocus=True,
            )
            if request.query_params.get("code") is not None:
                Field("Code", name="code", testid="claim-code", value=request.query_params["code"][:128])
            text("div", "", "error", data_testid="claim-error", role="alert")
            tag("button", "button primary big", "Get my machine", type="submit", data_testid="claim-submit")
        form.on("submit", js_handler="(e) => { e.preventDefault(); window.lablinkClaim(e.target); }")

        def show(snapshot: Snapshot, _: ChangeSet | None = None) -> None:
            free = sum(vm.pool_id == found.id and vm.status is VmStatus.AVAILABLE for vm in snapshot.vms.values())
            waiting = sum(snapshot.claims[claim_id].pool_id == found.id for claim_id in snapshot.positions)
            if free and not waiting:
                frame.subtitle.say(f"{found.name}: {count(free, 'machine')} free right now.")
            elif waiting:
                frame.subtitle.say(
                    f"{found.name}: {count(waiting, 'person')} in line; you will be let in by itself.".replace(
                        "persons", "people"
                    )
                )
            else:
                frame.subtitle.say(f"{found.name}: none is free right now; you will get the next one.")

        await follow(house, frame, start=show, on_changes=show)
    return None
