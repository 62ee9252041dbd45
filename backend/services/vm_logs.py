"""Logs that agents ship: kept by VM and source, the beginning and the end of each, with the gap between told.

Every line has a number in its source. What comes again (the answer was lost, the agent was started anew) is known by
it; what is missing, wherever it was left out, shows as a gap between two numbers.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import InvalidInput, LabLinkError
from backend.models import VmLog, VmLogSource
from backend.services.log_text import MAX_LINE, keep_lines, level_of
from backend.services.views import LogLineView

__all__ = [
    "MAX_LINE",
    "LogBatch",
    "LogBounds",
    "LogCursor",
    "iterate_vm_log",
    "list_vm_log",
    "record_vm_log",
    "record_vm_logs",
]

MAX_BATCH_LINES, MAX_SOURCES = 1_000, 16
# What a row costs beside its lines.
ROW_BYTES = 100
# A tail may be longer than its bound by this factor, so that it is not cut at every batch.
SLACK = 1.25
# The lines of a batch are numbered from its id times this, so that they are in order over all batches.
_APART = 1_024
_READ_BATCHES = 40


@dataclass(frozen=True, slots=True)
class LogBounds:
    """How much of each source of a VM is kept, in bytes: of its beginning, and of its end."""

    head_bytes: int = 256 * 1024
    tail_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Lines of one source, in order. ``ats_ms``: when each was written, in ms since 1970 by our clock; else now.

    ``first_seq``: the number of the first one in the agent's ``stream``; without it they are what comes next.
    """

    vm_id: int
    source: str
    lines: Sequence[str]
    ats_ms: Sequence[int] | None = None
    stream: str = ""
    first_seq: int | None = None


@dataclass(slots=True)
class LogCursor:
    """How far a reader has come: the last batch, and for each source the last line's stream and number."""

    after_id: int = 0
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)


async def record_vm_log(
    db: Database, vm_id: int, source: str, lines: Sequence[str], *, secrets: Collection[str] = ()
) -> None:
    """Appends lines without numbers to a VM's log, as ``record_vm_logs`` does."""
    for refusal in await record_vm_logs(db, [LogBatch(vm_id, source, lines)], secrets=secrets):
        if refusal:
            raise refusal


async def record_vm_logs(
    db: Database, batches: Sequence[LogBatch], bounds: LogBounds = LogBounds(), *, secrets: Collection[str] = ()
) -> list[LabLinkError | None]:
    """Stores batches of many VMs at once; what was stored before is skipped. Returns the refusal of each, if any.

    Secrets are struck out, by their look and these very ones; lines are cut at 4,000 characters.
    """
    refusals: list[LabLinkError | None] = []
    async with db.transaction() as session:
        sources = await _lock_sources(session, {batch.vm_id for batch in batches})
        rows: list[dict[str, Any]] = []
        for batch in batches:
            source = _find_source(sources, batch)
            refusals.append(_TOO_MANY if source is None else None)
            if source is not None and (row := _take(db.now(), batch, source, bounds, secrets)):
                rows.append(row)
        if rows:
            changed = {(row["vm_id"], row["source"]) for row in rows}
            await session.execute(
                _STORE,
                {
                    "at": db.now(),
                    "rows": json.dumps(rows),
                    "sources": json.dumps([_state(sources[key]) for key in sorted(changed)]),
                },
            )
            # No trigger: one notice a write says which VMs have news, and only their own pages care.
            await session.execute(_NOTIFY, {"ids": sorted({row["vm_id"] for row in rows})})
            await _cut(session, [sources[key] for key in sorted(changed)], bounds)
    return refusals


async def list_vm_log(db: Database, vm_id: int) -> list[LogLineView]:
    """All that is kept of a VM's log, oldest first."""
    return [line async for lines in iterate_vm_log(db, vm_id, LogCursor()) for line in lines]


async def iterate_vm_log(
    db: Database, vm_id: int, cursor: LogCursor, *, head: int | None = None, tail: int | None = None
) -> AsyncIterator[list[LogLineView]]:
    """What came after the cursor, in portions, oldest first; gaps are lines of their own. Moves the cursor.

    With ``head`` and ``tail`` no more than about so many lines of the beginning and of the end.
    """
    query = select(VmLog.id, VmLog.last_seq - VmLog.first_seq + 1).where(VmLog.vm_id == vm_id)
    async with db.transaction() as session:
        found = (await session.execute(query.where(VmLog.id > cursor.after_id).order_by(VmLog.id))).all()
    ids = _choose([(row[0], row[1]) for row in found], head, tail)
    for start in range(0, len(ids), _READ_BATCHES):
        part = ids[start : start + _READ_BATCHES]
        async with db.transaction() as session:
            batches = (await session.scalars(select(VmLog).where(VmLog.id.in_(part)).order_by(VmLog.id))).all()
        # Each by itself: a batch may hold a thousand lines, and others want to be served between two of them.
        for batch in batches:
            yield _lines_of(batch, cursor)


def _choose(found: Sequence[tuple[int, int]], head: int | None, tail: int | None) -> list[int]:
    """The ids of the batches that make up the beginning and the end."""
    ids = [each for each, _ in found]
    if head is None or tail is None or sum(lines for _, lines in found) <= head + tail:
        return ids
    return ids[: (first := _count(found, head))] + ids[max(first, len(ids) - _count(found[::-1], tail)) :]


def _count(found: Sequence[tuple[int, int]], wanted: int) -> int:
    taken = 0
    for number, (_, lines) in enumerate(found):
        taken += lines
        if taken > wanted:
            return max(1, number)
    return len(found)


def _lines_of(batch: VmLog, cursor: LogCursor) -> list[LogLineView]:
    number, source = batch.id * _APART, batch.source
    said = [(datetime.fromtimestamp(ms / 1_000, UTC), line) for ms, line in json.loads(batch.lines)]
    stream, last_seq = cursor.seen.get(source, (batch.stream, 0))
    missing = batch.first_seq - last_seq - 1 if stream == batch.stream else batch.first_seq - 1
    views = [LogLineView(number, said[0][0], "gap", source, gap_words(missing))] if missing > 0 else []
    views += [LogLineView(number + 1 + n, at, level_of(line), source, line) for n, (at, line) in enumerate(said)]
    cursor.after_id, cursor.seen[source] = batch.id, (batch.stream, batch.last_seq)
    return views


def gap_words(missing: int) -> str:
    """What stands in place of lines that are not here."""
    return f"… {missing:,} {'line' if missing == 1 else 'lines'} left out …"


async def _lock_sources(session: AsyncSession, vm_ids: Collection[int]) -> dict[tuple[int, str], VmLogSource]:
    query = (
        select(VmLogSource)
        .where(VmLogSource.vm_id.in_(vm_ids))
        .order_by(VmLogSource.vm_id, VmLogSource.source)
        .with_for_update()
    )
    found = (await session.scalars(query)).all()
    # They are written by a statement for all, not one by one.
    session.expunge_all()
    return {(each.vm_id, each.source): each for each in found}


def _find_source(sources: dict[tuple[int, str], VmLogSource], batch: LogBatch) -> VmLogSource | None:
    key = (batch.vm_id, batch.source)
    if key not in sources:
        if sum(vm_id == batch.vm_id for vm_id, _ in sources) >= MAX_SOURCES:
            return None
        sources[key] = VmLogSource(
            vm_id=batch.vm_id, source=batch.source, stream="", last_seq=0, head_bytes=0, tail_bytes=0, carry=""
        )
    return sources[key]


def _take(
    at: datetime, batch: LogBatch, source: VmLogSource, bounds: LogBounds, secrets: Collection[str]
) -> dict[str, Any] | None:
    """The row of a batch, without what is known already; brings its source up to date."""
    if source.stream != batch.stream:
        source.stream, source.last_seq = batch.stream, 0
    first = source.last_seq + 1 if batch.first_seq is None else batch.first_seq
    known = max(0, source.last_seq + 1 - first)
    lines = batch.lines[known:]
    if not lines:
        return None
    now_ms = int(at.timestamp() * 1_000)
    ats_ms = batch.ats_ms[known:] if batch.ats_ms else [now_ms] * len(lines)
    kept, source.carry = keep_lines(lines, carry=source.carry, secrets=secrets)
    content = json.dumps(list(zip(ats_ms, kept, strict=True)), ensure_ascii=False, separators=(",", ":"))
    size = len(content.encode()) + ROW_BYTES
    is_head = source.head_bytes + size <= bounds.head_bytes
    if is_head:
        source.head_bytes += size
    else:
        # Closed: what comes after a gap belongs to the end, however short it is.
        source.head_bytes = max(source.head_bytes, bounds.head_bytes)
        source.tail_bytes += size
    source.last_seq = first + known + len(lines) - 1
    return {
        "vm_id": batch.vm_id,
        "source": batch.source,
        "stream": batch.stream,
        "first_seq": first + known,
        "last_seq": source.last_seq,
        "is_head": is_head,
        "bytes": size,
        "lines": content,
    }


def _state(source: VmLogSource) -> Mapping[str, Any]:
    return {column.key: getattr(source, column.key) for column in VmLogSource.__table__.columns}


async def _cut(session: AsyncSession, sources: Sequence[VmLogSource], bounds: LogBounds) -> None:
    for source in sources:
        if source.tail_bytes > SLACK * bounds.tail_bytes:
            await session.execute(
                _CUT, {"vm_id": source.vm_id, "source": source.source, "tail_bytes": bounds.tail_bytes}
            )


_TOO_MANY = InvalidInput(f"A machine's log has at most {MAX_SOURCES} sources.", code="too_many_sources")
_STORE = text("""
WITH given AS (
    SELECT * FROM json_to_recordset(CAST(:rows AS json)) AS row(
        vm_id int, source text, stream text, first_seq bigint, last_seq bigint, is_head bool, bytes int, lines text)
), states AS (
    INSERT INTO vm_log_sources (vm_id, source, stream, last_seq, head_bytes, tail_bytes, carry)
    SELECT * FROM json_to_recordset(CAST(:sources AS json)) AS row(
        vm_id int, source text, stream text, last_seq bigint, head_bytes bigint, tail_bytes bigint, carry text)
    ON CONFLICT (vm_id, source) DO UPDATE SET stream = EXCLUDED.stream, last_seq = EXCLUDED.last_seq,
        head_bytes = EXCLUDED.head_bytes, tail_bytes = EXCLUDED.tail_bytes, carry = EXCLUDED.carry
)
INSERT INTO vm_logs (vm_id, at, source, stream, first_seq, last_seq, is_head, bytes, lines)
SELECT vm_id, :at, source, stream, first_seq, last_seq, is_head, bytes, lines FROM given""")
# Payloads stay below Postgres' 8,000 bytes.
_NOTIFY = text("""
SELECT pg_notify('lablink', json_build_object('table', 'vm_logs', 'ids', json_agg(id))::text)
FROM unnest(CAST(:ids AS int[])) WITH ORDINALITY AS each(id, place) GROUP BY place / 500""")
_CUT = text("""
WITH sized AS (
    SELECT id, bytes, sum(bytes) OVER (ORDER BY id DESC) AS upto FROM vm_logs
    WHERE vm_id = :vm_id AND source = :source AND NOT is_head
), cut AS (
    DELETE FROM vm_logs USING sized WHERE vm_logs.id = sized.id AND sized.upto > :tail_bytes
)
UPDATE vm_log_sources
SET tail_bytes = (SELECT coalesce(sum(bytes), 0) FROM sized WHERE upto <= :tail_bytes)
WHERE vm_id = :vm_id AND source = :source""")
