"""The events: who did what, when, from where."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.live.changes import ChangeSet, Snapshot
from backend.services.events import list_events
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.frame import admin_frame
from lablink_ui.parts import Field, button, tag
from lablink_ui.rows import event_row
from lablink_ui.visits import Reader, find_visit, follow, to_login

PAGE = 200
COLUMNS = (
    Column("at", "When", "when"),
    Column("what", "What", "link", wrap=True),
    Column("by", "Who", wrap=True),
)
NO_EVENTS = Empty("Nothing happened yet", "Whatever is done, by people or by rules, stands here.")


@ui.page("/admin/events")
async def events(request: Request) -> Response | None:
    """The history, newest first."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    house = visit.house
    with admin_frame(
        "Events", active="events", user=visit.admin.name, subtitle="Who did what, when, from where"
    ) as frame:
        limit = PAGE

        async def read() -> None:
            found = await list_events(house.db, words=search.value or None, limit=limit)
            table.reset([event_row(event) for event in found])
            older.set_visibility(len(found) == limit)

        def show_more() -> None:
            nonlocal limit
            limit += PAGE
            reader.ask()

        reader = Reader(read)
        with tag("div", "card pad"):
            search = Field(
                "Search all events", name="words", kind="search", testid="events-search", on_change=reader.ask
            )
        table = LiveTable("Events", COLUMNS, empty=NO_EVENTS, sort="at", descending=True, searchable=False)
        with tag("div", "row"):
            older = button("Show older", show_more)
            older.set_visibility(False)

        def change(_: Snapshot, changes: ChangeSet) -> None:
            if changes.has_events:
                reader.ask()

        await follow(house, frame, start=lambda _: reader.ask(), on_changes=change)
    return None
