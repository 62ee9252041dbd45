"""The last class of a pool, as it was: how many people came, and within what time."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.services.emails import ROBOTS


@dataclass(frozen=True, slots=True)
class PastClass:
    """So many people came, nine of ten of them within ``within_s`` seconds of its start."""

    people: int
    within_s: int


async def find_last_class(db: Database, pool_id: int) -> PastClass | None:
    """The last class of the pool's schedules to which anybody came."""
    async with db.transaction() as session:
        return await measure_last_class(session, pool_id)


async def measure_last_class(session: AsyncSession, pool_id: int) -> PastClass | None:
    """The same, within a transaction."""
    row = (await session.execute(_LAST, {"pool_id": pool_id, "robots": f"%{ROBOTS}"})).first()
    return PastClass(row.people, round(row.within_s)) if row else None


# Somebody who came twice came when they came first; who was there before the class came with its start.
_LAST = text("""
SELECT count(*) AS people,
       percentile_cont(0.9) WITHIN GROUP (ORDER BY greatest(0, extract(epoch FROM came_at - starts_at))) AS within_s
FROM (SELECT runs.starts_at, min(claims.created_at) AS came_at
      FROM schedule_runs AS runs JOIN claims ON claims.pool_id = runs.pool_id
          AND claims.created_at BETWEEN runs.started_at AND coalesce(runs.stopped_at, runs.stops_at)
      WHERE runs.pool_id = :pool_id AND claims.email NOT LIKE :robots
      GROUP BY runs.starts_at, lower(claims.email)) AS people
GROUP BY starts_at ORDER BY starts_at DESC LIMIT 1""")
