"""The history by API: as JSON, or whole as a file, streamed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator

from backend.api.agents import BIGGEST_ID
from backend.api.answers import refusals
from backend.api.auth import Admin, TheHouse
from backend.api.messages import storable
from backend.house import House
from backend.services.events import EventFilter, iterate_events
from backend.services.exports import ExportFormat, event_values, export_events

router = APIRouter(prefix="/api/admin", tags=["admin"], responses=refusals(400, 401, 403, 404, 409, 413, 422, 429))
MAX_LISTED = 10_000
_TYPES = {ExportFormat.CSV: "text/csv; charset=utf-8", ExportFormat.JSONL: "application/x-ndjson"}
Words = Annotated[str | None, Query(max_length=200), AfterValidator(lambda value: value and storable(value))]
Group = Literal["machines", "seats", "operations", "pools", "people"]


def get_filter(
    group: Group | None = None,
    actor: Words = None,
    about: Words = None,
    words: Words = None,
    since: datetime | None = None,
    until: datetime | None = None,
    after_id: Annotated[int, Query(ge=0, le=BIGGEST_ID)] = 0,
) -> EventFilter:
    """Which events are asked for; a time without a zone is UTC."""
    return EventFilter(group, actor, about, words, _zoned(since), _zoned(until), after_id=after_id)


Wanted = Annotated[EventFilter, Depends(get_filter)]


@router.get(
    "/events",
    response_class=JSONResponse,
    responses={200: {"content": {"application/json": {}, "text/csv": {}, "application/x-ndjson": {}}}},
)
async def list_history(
    _: Admin,
    house: TheHouse,
    wanted: Wanted,
    format_: Annotated[Literal["json", "csv", "jsonl"], Query(alias="format")] = "json",
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 1_000,
) -> Response:
    """Events, oldest first: the first ``limit`` as JSON, or all of them as a file."""
    if format_ != "json":
        return make_file(house, wanted, ExportFormat(format_))
    events: list[dict[str, Any]] = [event_values(each) async for each in iterate_events(house.db, wanted, limit=limit)]
    return JSONResponse({"events": events})


def make_file(house: House, wanted: EventFilter, form: ExportFormat) -> Response:
    """All events that are wanted, as a file that is written while it is read."""
    name = f"lablink-events-{house.db.now():%Y-%m-%d}.{form}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(export_events(house.db, wanted, form), media_type=_TYPES[form], headers=headers)


def _zoned(at: datetime | None) -> datetime | None:
    return at.replace(tzinfo=UTC) if at and at.tzinfo is None else at
