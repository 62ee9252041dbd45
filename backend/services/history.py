"""The history of machines: every heartbeat for a day, averages of ten minutes for a month; both bounded by settings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import text

from backend.db.engine import Database
from backend.services.views import SampleView

AVERAGED_S = 600


@dataclass(frozen=True, slots=True)
class Span:
    """How far back charts look, and over how long each of their points is an average: 360 points at most."""

    name: str
    words: str
    length_s: int
    every_s: int


HOUR = Span("1h", "Last hour", 3_600, 10)
DAY = Span("24h", "24 hours", 86_400, 300)
MONTH = Span("30d", "30 days", 30 * 86_400, 7_200)
SPANS = (HOUR, DAY, MONTH)


async def list_samples(db: Database, vm_id: int, span: Span) -> list[SampleView]:
    """The chart points of a VM over a span that ends now, oldest first."""
    values = {"vm_id": vm_id, "since": db.now() - timedelta(seconds=span.length_s), "every_s": span.every_s}
    async with db.transaction() as session:
        rows = await session.execute(_LIST_AVERAGES if span is MONTH else _LIST_SAMPLES, values)
        return [SampleView(*row) for row in rows]


async def average_samples(db: Database) -> int:
    """Averages every ten minutes that are over and were not averaged yet. Returns how many rows that made."""
    # What was measured by then has been written by now.
    until = db.now() - timedelta(seconds=30)
    async with db.transaction() as session:
        made = await session.execute(_AVERAGE, {"until": until, "every_s": AVERAGED_S})
        return len(made.all())


_COLUMNS = ("cpu_pct", "memory_pct", "disk_free_pct", "gpu_pct", "gpu_memory_pct", "gpu_temperature_c")
_MEANS = ", ".join(f"avg({name})::real" for name in _COLUMNS)
_BIN = "date_bin(make_interval(secs => :every_s), {}, timestamptz 'epoch')"

_LIST = f"""
SELECT {_BIN.format("at")}, {_MEANS} FROM {{}} WHERE vm_id = :vm_id AND at >= :since GROUP BY 1 ORDER BY 1"""
_LIST_SAMPLES, _LIST_AVERAGES = text(_LIST.format("health_samples")), text(_LIST.format("health_averages"))

# From where the averages end; at first, from where the samples begin.
_AVERAGE = text(f"""
INSERT INTO health_averages (vm_id, at, {", ".join(_COLUMNS)})
SELECT vm_id, {_BIN.format("at")}, {_MEANS} FROM health_samples
WHERE at >= coalesce((SELECT max(at) FROM health_averages) + make_interval(secs => :every_s), '-infinity')
    AND at < {_BIN.format("cast(:until AS timestamptz)")}
GROUP BY 1, 2 ON CONFLICT DO NOTHING RETURNING vm_id""")
