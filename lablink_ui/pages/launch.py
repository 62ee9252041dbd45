"""Launch: choose a pool and a number, see what will happen, what it costs and whether it can work, go."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.errors import Conflict, LabLinkError
from backend.live.changes import ChangeSet, Snapshot
from backend.services.costs import LaunchPreview, preview_launch
from backend.services.operations import request_launch
from backend.services.pools import list_pools
from backend.services.views import PoolView
from backend.states import CheckStatus, PoolStatus
from lablink_ui.check_list import CheckList
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.parts import Facts, Field, link_button, on_submit, tag, text
from lablink_ui.visits import Reader, Visit, find_visit, to_login
from lablink_ui.words import count, money

FACTS = {
    "machines": "Machines",
    "room": "Room in the pool",
    "price": "Price",
    "cost": "Cost",
    "planned": "Planned",
}
PLANNED_HOURS = 8
_ACKNOWLEDGE = "Something stands in the way of this launch: see below. Mend it, or choose to launch all the same."


@page_at("/admin/create")
async def launch(request: Request) -> Response | None:
    """The launch page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    found = await list_pools(visit.house.db)
    pools = [pool for pool in found if pool.status is PoolStatus.OPEN and not pool.is_rehearsal]
    subtitle = "Machines of one pool come up together; each is offered as soon as it is ready"
    with admin_frame("Launch machines", active="machines", user=visit.admin.name, subtitle=subtitle) as frame:
        if not pools:
            with tag("div", "card empty"):
                tag("span", "title", "No open pool")
                tag("span", "", "Machines are launched in a pool that is open: open one, or make a new one.")
                link_button("Go to the pools", "/admin/pools", classes="primary")
            await visit.follow(frame)
            return None
        await _Launch(visit, pools, _wanted(request, pools)).follow(frame)
    return None


class _Launch:
    """The form, and what is said beside it while it is filled."""

    def __init__(self, visit: Visit, pools: list[PoolView], chosen: PoolView) -> None:
        self._visit, self._house = visit, visit.house
        self._previews, self._checker = Reader(self._preview), Reader(self._check)
        self._is_anyway, self._checked = False, ("", 0)
        with tag("div", "grid2"):
            self._draw_form(pools, chosen)
            with tag("section", "card pad", aria_label="What will happen"):
                tag("h2", "", "What will happen")
                self._facts = Facts(FACTS)
        self._checks = CheckList(self._look_again)

    async def follow(self, frame: Frame) -> None:
        """Keeps it true while the page is open."""

        def start(_: Snapshot) -> None:
            self._previews.ask()
            self._checker.ask()

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.vms or changes.pools:
                self._previews.ask()
            if changes.pools:
                self._look_again()

        await self._visit.follow(frame, start=start, on_changes=change)

    def _draw_form(self, pools: list[PoolView], chosen: PoolView) -> None:
        with tag("form", "card pad") as form:
            self._pool = Field(
                "Pool",
                name="pool",
                kind="select",
                testid="launch-pool",
                value=chosen.name,
                options={pool.name: pool.name for pool in pools},
                on_change=self._take,
            )
            self._count = Field(
                "Number of machines",
                name="count",
                testid="launch-count",
                value="1",
                min=1,
                max=1000,
                kind="number",
                step=1,
                on_change=self._take,
            )
            self._hours = Field(
                "For how many hours, about",
                name="hours",
                testid="launch-hours",
                value=str(PLANNED_HOURS),
                hint="For the costs shown alone: machines run until they are destroyed",
                min=0,
                kind="number",
                step=1,
                on_change=self._take,
            )
            with tag("label", "row check") as self._anyway:
                tag("input", type="checkbox", data_testid="launch-anyway").on(
                    "change",
                    lambda event: self._set_anyway(is_on=bool(event.args)),
                    js_handler="(e) => emit(e.target.checked)",
                )
                tag("span", "", "Launch all the same")
            self._anyway.set_visibility(False)
            self._error = text("div", "", "error", data_testid="launch-error", role="alert")
            self._send = tag("button", "button primary big", "Launch", type="submit", data_testid="launch-submit")
            if not self._visit.may_operate:
                self._send.props["disabled"] = True
                tag("p", "note", f"As {self._visit.admin.role} you may look, but not launch.")
        on_submit(form, [self._pool, self._count, self._hours], self._submit)

    def _take(self) -> None:
        self._previews.ask()
        self._checker.ask()

    def _set_anyway(self, *, is_on: bool) -> None:
        self._is_anyway = is_on
        self._error.say("")

    def _look_again(self) -> None:
        self._checked = ("", 0)
        self._checker.ask()

    async def _submit(self) -> None:
        self._enable(is_on=False)
        try:
            actor, wanted = await self._visit.actor(), _whole(self._count.value)
            seen = await preview_launch(self._house.db, self._pool.value, wanted)
            # The preview's words are for people, the service's for programs; the service has the last word.
            if seen.problem:
                raise Conflict(seen.problem)
            if self._checks.worst is CheckStatus.PROBLEM and not self._is_anyway:
                raise Conflict(_ACKNOWLEDGE)
            operation = await request_launch(self._house.db, self._pool.value, wanted, actor=actor)
        except LabLinkError as exc:
            self._error.say(exc.message)
            self._enable(is_on=True)
        else:
            ui.navigate.to(f"/admin/operations/{operation.id}")

    def _enable(self, *, is_on: bool) -> None:
        if is_on:
            self._send.props.pop("disabled", None)
        else:
            self._send.props["disabled"] = True
        self._send.update()

    async def _preview(self) -> None:
        try:
            wanted, hours = _whole(self._count.value), float(_whole(self._hours.value))
            seen = await preview_launch(self._house.db, self._pool.value, wanted, hours=hours)
        except LabLinkError as exc:
            self._error.say(exc.message)
            return
        self._facts.show(**_facts(seen))
        self._error.say(seen.problem or "")

    async def _check(self) -> None:
        """Asks the provider, whenever pool or number are others than it was asked for."""
        asked = (self._pool.value, max(1, _whole(self._count.value)))
        if asked == self._checked:
            return
        self._checks.load()
        try:
            found = await self._house.preflight(*asked)
        except LabLinkError as exc:
            self._error.say(exc.message)
            found = []
        self._checked = asked
        self._checks.show(found)
        self._anyway.set_visibility(self._checks.worst is CheckStatus.PROBLEM)


def _wanted(request: Request, pools: list[PoolView]) -> PoolView:
    asked = request.query_params.get("pool", "")
    return next((pool for pool in pools if pool.name == asked), pools[0])


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
    known = {"machines": said, "room": f"{count(seen.room, 'more machine')}"}
    if seen.price is None:
        return {**known, "price": None, "cost": "none counted: no price is known", "planned": None}
    since = f" of {seen.price.as_of:%-d %B %Y}" if seen.price.as_of else ""
    return {
        **known,
        "price": f"{money(seen.price.per_hour)} per machine and hour ({seen.price.source}{since})",
        "cost": f"{money(seen.per_hour)} per hour, {money(seen.per_day)} per day",
        "planned": f"{money(seen.planned)} for {count(round(seen.hours), 'hour')}",
    }
