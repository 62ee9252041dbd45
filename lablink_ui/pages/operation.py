"""One operation: progress with each machine, the live Terraform log, cancel."""

from __future__ import annotations

from fastapi import Request
from fastapi.responses import Response

from backend.errors import NotFound
from backend.live.changes import ChangeSet, Snapshot
from backend.services.operation_logs import list_operation_log
from backend.services.operations import get_operation, request_cancel
from backend.services.views import OperationView
from backend.states import OPEN_OPERATION, OperationStatus
from lablink_ui.components import Column, Empty, LiveTable, LogView, Moment
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import Chip, button, link_button, tag, text
from lablink_ui.rows import count_done, log_line, percent_done, progress_row
from lablink_ui.visits import Reader, Visit, attempt, find_visit, to_login
from lablink_ui.words import OPERATION_WORDS, count, person, sentence, what_of

COLUMNS = (
    Column("machine", "Machine", "link"),
    Column("state", "Progress", "chip", wrap=True),
    Column("took", "Time", wide=1),
)
BIGGEST_ID = 2**63 - 1


@page_at("/admin/operations/{number}")
async def operation(request: Request, number: str) -> Response | None:
    """One operation's page."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    try:
        found = await get_operation(visit.house.db, _parse(number))
    except NotFound as exc:
        with admin_frame(
            "No such operation", active="operations", user=visit.admin.name, subtitle=exc.message
        ) as frame:
            link_button("All operations", "/admin/operations", classes="primary")
            await visit.follow(frame)
        return None
    await _draw(visit, found)
    return None


def _parse(number: str) -> int:
    if not number.isdigit() or int(number) > BIGGEST_ID:
        raise NotFound(f"There is no operation {number[:40]!r}.")
    return int(number)


async def _draw(visit: Visit, found: OperationView) -> None:
    house = visit.house
    title = what_of(found)
    with admin_frame(title, active="operations", user=visit.admin.name) as frame:

        async def cancel() -> None:
            words = "Terraform finishes what it is at and stops. What was made by then is kept."
            if await frame.ask.ask("Cancel this operation?", words, verb="Cancel operation"):
                await attempt(do_cancel)

        async def do_cancel() -> str:
            await request_cancel(house.db, found.id, actor=await visit.actor())
            return "Cancel asked for"

        with frame.buttons:
            stop = button("Cancel operation", cancel, classes="danger", testid="operation-cancel")
        with tag("div", "row", role="status"):
            chip = Chip("operation-status")
            reason = text("span", "", "sub said")
        with tag("div", "stack tight"):
            with tag(
                "div", "progress", role="progressbar", aria_label="Machines done", aria_valuemin=0, aria_valuemax=100
            ) as bar:
                fill = tag("span")
            with tag("p", "sub apart"):
                done = text("span")
                with tag("span", "", "asked for "):
                    Moment().show(found.created_at)
        log = LogView("Terraform log", testid="operation-log", href=f"/admin/operations/{found.id}/log.txt")
        table = LiveTable(
            "Progress with each machine",
            COLUMNS,
            empty=Empty("No machines", "This operation is about none."),
            searchable=len(found.progress) > 20,
        )
        last_line = 0

        def show(seen: OperationView) -> None:
            chip.show(seen.status, OPERATION_WORDS[seen.status])
            is_stopping = seen.cancel_requested_at and seen.status in OPEN_OPERATION
            reason.say("Cancel was asked for." if is_stopping else sentence(seen.reason or ""))
            frame.subtitle.say(f"{seen.pool} · operation {seen.id} · asked for by {person(seen.requested_by)}")
            can_stop = seen.status in OPEN_OPERATION and seen.cancel_requested_at is None
            stop.set_visibility(can_stop and visit.may_operate)
            percent = percent_done(seen)
            done.say(f"{count_done(seen)} of {count(len(seen.progress), 'machine')} done")
            fill.style(f"width: {percent}%")
            bar.props["aria-valuenow"] = percent
            bar.classes(**{"add" if seen.status is OperationStatus.FAILED else "remove": "bad"})
            bar.update()
            table.show([progress_row(index, each) for index, each in enumerate(seen.progress)])

        async def read_log() -> None:
            nonlocal last_line
            lines = await list_operation_log(house.db, found.id, after_id=last_line)
            if lines:
                last_line = lines[-1].id
                log.append([log_line(line) for line in lines])

        reader = Reader(read_log)

        def start(snapshot: Snapshot) -> None:
            show(snapshot.operations.get(found.id, found))
            reader.ask()

        def change(_: Snapshot, changes: ChangeSet) -> None:
            for seen in changes.operations.upserts:
                if seen.id == found.id:
                    show(seen)
            if found.id in changes.logged_operations:
                reader.ask()

        await visit.follow(frame, start=start, on_changes=change)
