"""The history as a file, for whoever is signed in: by plain HTTP, so that the browser saves it while it is written."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from backend.api.history import Wanted, make_file
from backend.services.exports import ExportFormat
from lablink_ui.visits import find_visit, to_login

router = APIRouter(include_in_schema=False)


@router.get("/admin/events/export")
async def export(
    request: Request, wanted: Wanted, form: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.CSV
) -> Response:
    """The events that the page's filters let through, all of them."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    return make_file(visit.house, wanted, form)
