"""The events: who did what, when, from where."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from backend.house import House
from backend.live.changes import ChangeSet, Snapshot
from backend.services.events import EventFilter, list_events
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.components.change import Row
from lablink_ui.event_filters import EventFilters
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import button, tag
from lablink_ui.rows import event_row
from lablink_ui.visits import Reader, find_visit, to_login

PAGE = 200
COLUMNS = (
    Column("at", "When", "when", phone="note"),
    Column("what", "What", "link", wrap=True, phone="head"),
    Column("by", "Who", wrap=True, phone="rest"),
)
NO_EVENTS = Empty("Nothing happened yet", "Whatever is done, by people or by rules, stands here.")
NOT_FOUND = Empty("No events", "Whatever is done, by people or by rules, stands here. Other filters may show more.")


@page_at("/admin/events")
async def events(request: Request) -> Response | None:
    """The history, newest first."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    with admin_frame(
        "Events", active="events", user=visit.admin.name, subtitle="Who did what, when, from where"
    ) as frame:
        limit, shown = PAGE, None

        async def read() -> None:
            nonlocal shown
            asked = filters.wanted(), limit
            rows = await _read_rows(house, *asked)
            table.show(rows, anew=asked != shown)
            shown = asked
            older.set_visibility(len(rows) == asked[1])

        def begin_anew() -> None:
            nonlocal limit
            limit = PAGE
            reader.ask()

        def show_more() -> None:
            nonlocal limit
            limit += PAGE
            reader.ask()

        reader = Reader(read)
        filters = EventFilters(begin_anew)
        with frame.buttons:
            filters.draw_links()
        table = LiveTable(
            "Events",
            COLUMNS,
            empty=NOT_FOUND,
            sort="at",
            descending=True,
            on_search=filters.search,
            search_testid="events-search",
        )
        with tag("div", "row"):
            older = button("Show older", show_more)
            older.set_visibility(False)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.has_events:
                reader.ask()

        await visit.follow(frame, start=lambda _: reader.ask(), on_changes=change)
    return None


async def _read_rows(house: House, wanted: EventFilter, limit: int) -> list[Row]:
    """Once for all pages that look at the same: where a class is served, every moment brings an event."""

    async def read() -> list[Row]:
        found = await list_events(house.db, wanted, limit=limit)
        return [event_row(event, house.live.snapshot) for event in found]

    return await house.shared.get(("events", wanted, limit), read)
