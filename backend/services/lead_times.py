"""How long the machines of a pool take from the launch until they can be claimed, by what they took so far."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

# Of the last machines, the slow ones count; and some time on top, since a class waits for its last machine.
_LAST, _SHARE, _SPARE_S = 40, 0.9, 60
MOST_S = 7_200


async def find_lead_s(session: AsyncSession, pool_id: int, *, default_s: int) -> int:
    """How long before a class its machines are launched, in seconds; ``default_s`` until three were measured."""
    row = (await session.execute(_BOOTS, {"pool_id": pool_id, "last": _LAST, "share": _SHARE})).one()
    if row.measured < 3:
        return default_s
    return min(MOST_S, round(float(row.slow_s)) + _SPARE_S)


_BOOTS = text("""
SELECT count(took_s) AS measured, percentile_cont(:share) WITHIN GROUP (ORDER BY took_s) AS slow_s
FROM (SELECT (SELECT extract(epoch FROM min(events.at) - vms.created_at) FROM events
              WHERE events.vm_id = vms.id AND events.kind = 'vm.available') AS took_s
      FROM vms WHERE pool_id = :pool_id AND origin = 'terraform' AND first_heartbeat_at IS NOT NULL
      ORDER BY id DESC LIMIT :last) AS boots""")
