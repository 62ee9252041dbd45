"""The overview: what runs, who sits where, what needs attention, what it costs."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui
from nicegui.element import Element

from backend.live.changes import ChangeSet, Snapshot
from backend.services.costs import get_costs
from backend.states import GONE_VM, OperationStatus, VmStatus
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.frame import admin_frame
from lablink_ui.parts import Text, link_button, tag, text
from lablink_ui.rows import TROUBLE, condition_notes, operation_row, pool_row
from lablink_ui.visits import Reader, find_visit, follow, to_login
from lablink_ui.words import VM_WORDS, count, money

MAX_SHOWN = 8
POOL_COLUMNS = (
    Column("pool", "Pool", "link"),
    Column("state", "State", "chip"),
    Column("machines", "Machines"),
    Column("free", "Available"),
    Column("used", "In use", wide=True),
    Column("line", "In line"),
    Column("price", "Price per machine", wide=True),
)


@ui.page("/admin")
async def overview(request: Request) -> Response | None:
    """The overview."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    with admin_frame("Overview", active="overview", user=visit.admin.name) as frame:
        with frame.buttons:
            link_button("Launch machines", "/admin/create", classes="primary", icon_name="plus")
        tiles = _draw_tiles()
        with tag("div", "grid2"):
            with tag("section", "card pad", aria_label="Needs attention"):
                tag("h2", "", "Needs attention")
                attention = tag("div")
            with tag("section", "card pad", aria_label="Running now"):
                tag("h2", "", "Running now")
                running = tag("div")
        with tag("section", "section", aria_label="Pools"):
            tag("h2", "", "Pools")
            pools = LiveTable(
                "Pools",
                POOL_COLUMNS,
                empty=Empty("No pools", "Make one to launch machines.", "New pool", "/admin/pools"),
                searchable=False,
            )

        async def read_costs() -> None:
            costs = await get_costs(house.db)
            frame.subtitle.say(f"{money(costs.per_hour)} per hour now · {money(costs.today)} today (UTC)")

        reader = Reader(read_costs)
        shown: dict[Element, object] = {}

        def show(snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
            for status, number in tiles.items():
                found = sum(vm.status is status for vm in snapshot.vms.values())
                number.say(str(found))
                number.classes(**{"remove" if found else "add": "zero"})
            pools.reset([pool_row(pool, snapshot) for pool in snapshot.pools.values()])
            _fill(shown, attention, _list_attention(snapshot), "All machines are well.")
            _fill(shown, running, _list_running(snapshot), "No operation is running.")
            if changes is None or changes.vms:
                reader.ask()

        await follow(house, frame, start=show, on_changes=show)
    return None


def _draw_tiles() -> dict[VmStatus, Text]:
    tiles = {}
    with tag("div", "tiles"):
        for status in VmStatus:
            if status in GONE_VM:
                continue
            with tag("a", "card tile" + (" bad" if status in TROUBLE else ""), href="/admin/instances"):
                tag("span", "label", VM_WORDS[status][0])
                tiles[status] = text("span", "–", "number", data_testid=f"count-{status}")
    return tiles


def _list_attention(snapshot: Snapshot) -> list[tuple[str, str, str, str]]:
    """(tone, words, link, detail) of everything somebody should look at."""
    found = []
    for vm in sorted(snapshot.vms.values(), key=lambda vm: vm.hostname):
        notes = condition_notes(vm)
        if vm.status in TROUBLE:
            found.append(
                (
                    "bad",
                    VM_WORDS[vm.status][0],
                    f"/admin/instances/{vm.hostname}",
                    f"{vm.hostname}: {vm.reason or 'no reason given'}",
                )
            )
        elif notes:
            found.append(
                (
                    notes[0]["tone"],
                    notes[0]["text"],
                    f"/admin/instances/{vm.hostname}",
                    f"{vm.hostname}: {notes[0]['title']}",
                )
            )
    if snapshot.positions:
        found.append(
            (
                "busy",
                "Line",
                "/admin/create",
                f"{count(len(snapshot.positions), 'person')} in line: launch more machines".replace(
                    "persons", "people"
                ),
            )
        )
    return found


def _list_running(snapshot: Snapshot) -> list[tuple[str, str, str, str]]:
    rows = []
    for operation in sorted(snapshot.operations.values(), key=lambda each: -each.id):
        if operation.status in {OperationStatus.QUEUED, OperationStatus.RUNNING}:
            row = operation_row(operation)
            rows.append(
                (
                    row["state"]["tone"],
                    row["state"]["text"],
                    f"/admin/operations/{operation.id}",
                    f"{row['what']['text']} in {operation.pool}",
                )
            )
    return rows


def _fill(shown: dict[Element, object], box: Element, rows: list[tuple[str, str, str, str]], nothing: str) -> None:
    if shown.get(box) == rows:
        return
    shown[box] = rows
    box.clear()
    with box:
        if not rows:
            tag("p", "sub", nothing)
        for tone, words, href, detail in rows[:MAX_SHOWN]:
            with tag("div", "attention"):
                tag("span", f"chip {tone}", words)
                tag("a", "", detail, href=href)
        if len(rows) > MAX_SHOWN:
            tag("a", "attention", f"and {len(rows) - MAX_SHOWN} more", href="/admin/instances")
