"""The operations: every Terraform run, newest first."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from backend.live.changes import ChangeSet, Snapshot
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import link_button
from lablink_ui.rows import operation_row
from lablink_ui.visits import find_visit, to_login
from lablink_ui.words import OPERATION_WORDS

COLUMNS = (
    Column("what", "Operation", "link"),
    Column("state", "Status", "chip", wrap=True),
    Column("progress", "Machines done", "progress", phone="note"),
    Column("by", "Asked for by", wide=1),
    Column("at", "When", "ago", phone="rest"),
    Column("took", "Took", wide=1),
)
FILTERS = (("", "All"), *((str(status), words[0]) for status, words in OPERATION_WORDS.items()))


@page_at("/admin/operations")
async def operations(request: Request) -> Response | None:
    """The table of operations."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    subtitle = "Every Terraform run, with its log"
    with admin_frame("Operations", active="operations", user=visit.admin.name, subtitle=subtitle) as frame:
        with frame.buttons:
            if visit.may_operate:
                link_button("Launch machines", "/admin/create", classes="primary", icon_name="plus")
        table = LiveTable(
            "Operations",
            COLUMNS,
            empty=Empty(
                "No operations yet",
                "Every launch and every destroy stands here, with its Terraform log.",
                "Launch machines",
                "/admin/create",
            ),
            filters=FILTERS,
            descending=True,
            on_resync=lambda: start(visit.house.live.snapshot),
        )

        def start(snapshot: Snapshot) -> None:
            table.reset([operation_row(operation) for operation in snapshot.operations.values()])

        def change(_: Snapshot, changes: ChangeSet) -> None:
            table.patch([operation_row(each) for each in changes.operations.upserts], changes.operations.removals)

        await visit.follow(frame, start=start, on_changes=change)
    return None
