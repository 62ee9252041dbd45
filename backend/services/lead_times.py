"""How long the machines of a pool take from the launch until they can be claimed, by what they took so far."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Of the last machines, the slow ones count; and some time on top, since a class waits for its last machine.
_LAST, _SHARE, _SPARE_S = 40, 0.9, 60
MOST_S, ENOUGH = 7_200, 3


@dataclass(frozen=True, slots=True)
class BootTimes:
    """How long the last ``measured`` machines of a pool took, in seconds: half of them, and nine of ten.

    ``lead_s``: how long before a class its machines are launched.
    """

    measured: int
    median_s: float | None
    slow_s: float | None
    lead_s: int


async def find_lead_s(session: AsyncSession, pool_id: int, *, default_s: int) -> int:
    """How long before a class its machines are launched, in seconds; ``default_s`` until three were measured."""
    return (await measure_boots(session, pool_id, default_s=default_s)).lead_s


async def measure_boots(session: AsyncSession, pool_id: int, *, default_s: int) -> BootTimes:
    """What the machines of a pool took so far; ``default_s`` is the lead until three were measured."""
    row = (await session.execute(_BOOTS, {"pool_id": pool_id, "last": _LAST, "share": _SHARE})).one()
    median_s, slow_s = (float(each) if each is not None else None for each in (row.median_s, row.slow_s))
    lead_s = default_s if row.measured < ENOUGH or slow_s is None else min(MOST_S, round(slow_s) + _SPARE_S)
    return BootTimes(row.measured, median_s, slow_s, lead_s)


_BOOTS = text("""
SELECT count(took_s) AS measured,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY took_s) AS median_s,
       percentile_cont(:share) WITHIN GROUP (ORDER BY took_s) AS slow_s
FROM (SELECT (SELECT extract(epoch FROM min(events.at) - vms.created_at) FROM events
              WHERE events.vm_id = vms.id AND events.kind = 'vm.available') AS took_s
      FROM vms WHERE pool_id = :pool_id AND origin = 'terraform' AND first_heartbeat_at IS NOT NULL
      ORDER BY id DESC LIMIT :last) AS boots""")
