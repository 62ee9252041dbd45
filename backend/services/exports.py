"""Exports: the history as a file. Columns are named one by one, so that nothing leaves the house by accident."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator
from enum import StrEnum

from backend.db.engine import Database
from backend.services.events import EventFilter, NamedEvent, iterate_events

COLUMNS = ("id", "at", "actor", "address", "kind", "message", "pool", "vm", "claim_id", "operation_id")
# A spreadsheet runs what begins like this as a formula; with an apostrophe in front it is text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class ExportFormat(StrEnum):
    """What a file may be."""

    CSV = "csv"  # for spreadsheets
    JSONL = "jsonl"  # one JSON object a line


async def export_events(db: Database, wanted: EventFilter, form: ExportFormat) -> AsyncIterator[str]:
    """The lines of the file, oldest event first."""
    if form is ExportFormat.CSV:
        yield _csv_line(COLUMNS)
    async for each in iterate_events(db, wanted):
        values = event_values(each)
        if form is ExportFormat.CSV:
            yield _csv_line(["" if value is None else _inert(str(value)) for value in values.values()])
        else:
            yield json.dumps(values, ensure_ascii=False) + "\n"


def event_values(named: NamedEvent) -> dict[str, str | int | None]:
    """An event under the names of ``COLUMNS``."""
    event = named.event
    values = (
        event.id,
        event.at.isoformat(),
        event.actor,
        event.address,
        event.kind,
        event.message,
        named.pool,
        named.vm,
        event.claim_id,
        event.operation_id,
    )
    return dict(zip(COLUMNS, values, strict=True))


def _csv_line(cells: tuple[str, ...] | list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow(cells)
    return line.getvalue()


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
