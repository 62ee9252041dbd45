"""Launch: choose a pool and a number, see what will happen and what it costs, go."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.errors import Conflict, LabLinkError
from backend.live.changes import ChangeSet, Snapshot
from backend.services.costs import LaunchPreview, preview_launch
from backend.services.operations import request_launch
from backend.services.pools import list_pools
from backend.states import PoolStatus
from lablink_ui.frame import admin_frame
from lablink_ui.parts import Facts, Field, link_button, on_submit, tag, text
from lablink_ui.visits import Reader, find_visit, to_login
from lablink_ui.words import count, money

FACTS = {"machines": "Machines", "room": "Room in the pool", "cost": "Cost"}


@ui.page("/admin/create")
async def launch(request: Request) -> Response | None:
    """The launch page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    pools = [pool.name for pool in await list_pools(house.db) if pool.status is PoolStatus.OPEN]
    subtitle = "Machines of one pool come up together; each is offered as soon as it is ready"
    with admin_frame("Launch machines", active="machines", user=visit.admin.name, subtitle=subtitle) as frame:
        if not pools:
            with tag("div", "card empty"):
                tag("span", "title", "No open pool")
                tag("span", "", "Machines are launched in a pool that is open: open one, or make a new one.")
                link_button("Go to the pools", "/admin/pools", classes="primary")
            await visit.follow(frame)
            return None

        async def submit() -> None:
            send.props["disabled"] = True
            send.update()
            try:
                actor, wanted = await visit.actor(), _whole(number.value)
                seen = await preview_launch(house.db, pool.value, wanted)
                # The preview's words are for people, the service's for programs; the service has the last word.
                if seen.problem:
                    raise Conflict(seen.problem)
                operation = await request_launch(house.db, pool.value, wanted, actor=actor)
            except LabLinkError as exc:
                error.say(exc.message)
                del send.props["disabled"]
                send.update()
            else:
                ui.navigate.to(f"/admin/operations/{operation.id}")

        async def preview() -> None:
            try:
                seen = await preview_launch(house.db, pool.value, _whole(number.value))
            except LabLinkError as exc:
                error.say(exc.message)
                return
            facts.show(**_facts(seen))
            error.say(seen.problem or "")

        reader = Reader(preview)
        with tag("div", "grid2"):
            with tag("form", "card pad") as form:
                pool = Field(
                    "Pool",
                    name="pool",
                    kind="select",
                    testid="launch-pool",
                    value=_wanted(request, pools),
                    options={name: name for name in pools},
                    on_change=reader.ask,
                )
                number = Field(
                    "Number of machines",
                    name="count",
                    kind="number",
                    testid="launch-count",
                    value="1",
                    min=1,
                    max=1000,
                    step=1,
                    on_change=reader.ask,
                )
                error = text("div", "", "error", data_testid="launch-error", role="alert")
                send = tag("button", "button primary big", "Launch", type="submit", data_testid="launch-submit")
                if not visit.may_operate:
                    send.props["disabled"] = True
                    tag("p", "note", f"As {visit.admin.role} you may look, but not launch.")
            on_submit(form, [pool, number], submit)
            with tag("section", "card pad", aria_label="What will happen"):
                tag("h2", "", "What will happen")
                facts = Facts(FACTS)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.vms or changes.pools:
                reader.ask()

        await visit.follow(frame, start=lambda _: reader.ask(), on_changes=change)
    return None


def _wanted(request: Request, pools: list[str]) -> str:
    asked = request.query_params.get("pool", "")
    return asked if asked in pools else pools[0]


def _whole(value: str) -> int:
    """What was typed as a whole number; 0, which is refused with the right words, for anything else."""
    return int(value) if value.strip().isdigit() and len(value) < 10 else 0


def _facts(seen: LaunchPreview) -> dict[str, str | None]:
    names = seen.hostnames
    if not names:
        said = None
    elif len(names) <= 3:
        said = ", ".join(names)
    else:
        said = f"{count(len(names), 'machine')}: {names[0]} to {names[-1]}"
    cost = (
        f"{money(seen.per_hour)} per hour, {money(seen.per_day)} per day"
        if seen.per_hour
        else "nothing: this pool has no price"
    )
    return {"machines": said, "room": f"{count(seen.room, 'more machine')}", "cost": cost}
