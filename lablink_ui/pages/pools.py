"""The pools: make, edit, open, close; the join link for researchers and tokens for machines that join by themselves."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.house import House
from backend.live.changes import ChangeSet, Snapshot
from backend.services.pools import PoolSpec, create_pool, get_pool, set_pool_open, spec_of, update_pool
from backend.services.views import PoolView
from backend.states import PoolStatus, Role
from lablink_ui.components import CopyButton, Empty, LiveTable
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.pages.overview import POOL_COLUMNS
from lablink_ui.pages.pool_admission import AdmissionPart
from lablink_ui.pages.pool_fields import PoolFields
from lablink_ui.pages.pool_found import find_pool
from lablink_ui.pages.pool_healing import HealingPart
from lablink_ui.pages.pool_machines import OwnMachinesPart
from lablink_ui.parts import Chip, Field, button, link_button, on_submit, tag, text
from lablink_ui.rows import pool_row
from lablink_ui.visits import Visit, attempt, find_visit, to_login
from lablink_ui.words import POOL_WORDS


@page_at("/admin/pools")
async def pools(request: Request) -> Response | None:
    """All pools, and a form for a new one."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    subtitle = "Machines of one specification, launched and claimed together"
    with admin_frame("Pools", active="pools", user=visit.admin.name, subtitle=subtitle) as frame:
        empty = Empty("No pools", "Make the first below.")
        table = LiveTable("Pools", POOL_COLUMNS, empty=empty, searchable=False)
        with tag("form", "card pad narrow") as form:
            tag("h2", "", "New pool")
            name = Field(
                "Name",
                name="name",
                testid="pool-name",
                hint="Lower-case letters, digits and hyphens; it is part of every hostname",
                required=True,
            )
            fields = PoolFields(house.pool_defaults, house)
            tag("button", "button primary start", "Make pool", type="submit", data_testid="pool-submit")

        async def make() -> str:
            actor = await visit.actor(Role.ADMIN)
            pool = await create_pool(house.db, name.value.strip(), fields.read(house.pool_defaults), actor=actor)
            ui.navigate.to(f"/admin/pools/{pool.name}")
            return f"Pool {pool.name} was made"

        on_submit(form, [name, *fields.all], lambda: attempt(make))
        form.set_visibility(visit.may_administer)
        _say_who_may(visit)

        def show(snapshot: Snapshot, _: ChangeSet | None = None) -> None:
            table.show([pool_row(pool, snapshot) for pool in snapshot.pools.values()])

        await visit.follow(frame, start=show, on_changes=show)
    return None


@page_at("/admin/pools/{name}")
async def pool(request: Request, name: str) -> Response | None:
    """One pool."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    found = await find_pool(visit, name)
    if found is None:
        return None
    with admin_frame(f"Pool {name}", active="pools", user=visit.admin.name) as frame:
        await _draw(visit, frame, found)
    return None


async def _draw(visit: Visit, frame: Frame, found: PoolView) -> None:
    house, name = visit.house, found.name
    with frame.buttons:
        opener = button("", lambda: attempt(toggle), testid="pool-toggle")
        words = text("span", "")
        words.move(opener)
        opener.set_visibility(visit.may_administer)
        link_button("State", f"/admin/pools/{name}/state")
        if not found.is_rehearsal:
            link_button("Rehearse", f"/admin/pools/{name}/rehearsal")
        if visit.may_operate:
            link_button("Launch machines", f"/admin/create?pool={name}", classes="primary", icon_name="plus")
    chip = Chip("pool-status")
    with tag("div", "grid2"):
        with tag("form", "card pad") as form:
            tag("h2", "", "Specification")
            fields = PoolFields(spec_of(found), house)
            tag("span", "hint sub", "Machines that run already are not touched.")
            save_button = tag("button", "button primary start", "Save", type="submit", data_testid="pool-save")
            save_button.set_visibility(visit.may_administer)
            if not visit.may_administer:
                fields.lock()
            _say_who_may(visit)
        with tag("div", "stack"):
            healing = HealingPart(visit, found)
            admission = AdmissionPart(visit, frame, found)
            with tag("section", "card pad", aria_label="For researchers"):
                tag("h2", "", "For researchers")
                tag("p", "sub", "Show this link in the room, or send it around:")
                link = f"{house.settings.public_url}/join/{name}"
                with tag("div", "row"):
                    tag("a", "mono", link, href=f"/join/{name}")
                    CopyButton("Copy link", link)
            own = OwnMachinesPart(visit, frame, found)

    async def save() -> str:
        actor = await visit.actor(Role.ADMIN)
        await update_pool(house.db, name, fields.read(_known_here(spec_of(found), house)), actor=actor)
        return "Saved"

    on_submit(form, fields.all, lambda: attempt(save))

    async def toggle() -> str:
        actor = await visit.actor(Role.ADMIN)
        now = await get_pool(house.db, name)
        is_open = now.status is PoolStatus.OPEN
        if is_open and not await frame.ask.ask(
            f"Close pool {name}?",
            "Nobody can claim or launch in it. What runs keeps running until it is destroyed.",
            verb="Close pool",
        ):
            return ""
        is_loopback = house.settings.is_loopback
        await set_pool_open(house.db, name, is_open=not is_open, actor=actor, is_loopback=is_loopback)
        return f"Pool {name} is {'closed' if is_open else 'open'}"

    def show(snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        healing.show(changes)
        admission.show(snapshot, changes)
        own.show(snapshot, changes)
        seen = snapshot.pools.get(found.id, found)
        chip.show(seen.status, POOL_WORDS[seen.status])
        words.say("Close pool" if seen.status is PoolStatus.OPEN else "Open pool")
        row = pool_row(seen, snapshot)
        frame.subtitle.say(
            f"{row['machines']} machines · {row['free']} available · {row['used']} in use · {row['line']} in line"
        )

    show(house.live.snapshot)
    await visit.follow(frame, start=show, on_changes=show)


def _say_who_may(visit: Visit) -> None:
    if not visit.may_administer:
        tag("p", "note", f"As {visit.admin.role} you may look. Admins make and change pools.")


def _known_here(spec: PoolSpec, house: House) -> PoolSpec:
    """The specification with what this server allows."""
    return replace(spec, providers=tuple(house.providers), is_loopback=house.settings.is_loopback)
