"""Duties: which sweeps have anything to look at. One small statement for all, so that a server at rest is at rest.

Each condition is wider than what its sweep looks for: one that runs in vain costs milliseconds, one that is left out
costs somebody a seat.
"""

from __future__ import annotations

from enum import StrEnum

from backend.db.engine import Database
from backend.models.base import quoted
from backend.services.claims import POOLS_WAITING
from backend.services.emails import ROBOTS
from backend.states import GONE_VM, HOLDING_CLAIM, OPEN_CLAIM, OPEN_COMMAND, OPEN_OPERATION, PoolStatus, VmStatus


class Duty(StrEnum):
    """What a sweep is there for, as its task is named."""

    SILENCE = "silence"
    DEADLINES = "deadlines"
    LINES = "lines"
    SEATS = "seats"
    RUNS = "runs"
    REFILLS = "refills"
    HEALING = "healing"
    SCHEDULES = "schedules"
    REHEARSALS = "rehearsals"
    REPLAYS = "replays"


async def list_duties(db: Database) -> frozenset[Duty]:
    """The duties that there may be something to do for now."""
    async with db.express() as connection:
        row = await (await connection.execute(_ASK)).fetchone()
    assert row is not None
    return frozenset(duty for duty, is_due in zip(_CONDITIONS, row, strict=True) if is_due)


_REHEARSAL_RUNS = "EXISTS (SELECT FROM rehearsals WHERE status = 'running')"
_CONDITIONS = {
    Duty.SILENCE: "vms.hears",
    Duty.DEADLINES: f"vms.waits OR EXISTS (SELECT FROM commands WHERE status IN ({quoted(OPEN_COMMAND)}))",
    Duty.LINES: f"EXISTS ({POOLS_WAITING})",
    Duty.SEATS: f"EXISTS (SELECT FROM claims WHERE status IN ({quoted(HOLDING_CLAIM)}))",
    Duty.RUNS: f"EXISTS (SELECT FROM operations WHERE status IN ({quoted(OPEN_OPERATION)}))"
    " OR EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing')",
    Duty.REFILLS: f"EXISTS (SELECT FROM pools WHERE status = '{PoolStatus.OPEN}' AND available_min > 0)",
    Duty.HEALING: "vms.ails OR EXISTS (SELECT FROM repairs WHERE ended_at IS NULL)"
    " OR EXISTS (SELECT FROM healing_breakers WHERE opened_at IS NOT NULL)",
    Duty.SCHEDULES: "EXISTS (SELECT FROM schedules WHERE removed_at IS NULL)"
    " OR EXISTS (SELECT FROM schedule_runs WHERE status NOT IN ('ended', 'missed'))",
    Duty.REHEARSALS: f"{_REHEARSAL_RUNS} OR EXISTS (SELECT FROM claims"
    f" WHERE status IN ({quoted(OPEN_CLAIM)}) AND email LIKE '%{ROBOTS}')",
    Duty.REPLAYS: f"{_REHEARSAL_RUNS} OR EXISTS (SELECT FROM pools WHERE is_rehearsal)",
}
_ASK = f"""
SELECT {", ".join(_CONDITIONS.values())}
FROM (
    SELECT
        bool_or(unreachable_since IS NULL) AS hears,
        bool_or(status = '{VmStatus.BOOTING}' OR unreachable_since IS NOT NULL) AS waits,
        bool_or(
            status IN ({quoted({VmStatus.FAILED, VmStatus.QUARANTINED})}) OR unreachable_since IS NOT NULL
        ) AS ails
    FROM vms WHERE status NOT IN ({quoted(GONE_VM)})
) AS vms"""
