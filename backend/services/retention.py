"""Retention: what grows without end is cut to size."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, text

from backend.db.engine import Database
from backend.models import AdminSession, Alarm, Event, HealthAverage, HealthSample, LoginFailure, Repair

# Lines of an operation's log: a launch of a thousand machines says about twelve thousand.
OPERATION_HEAD, OPERATION_TAIL = 5_000, 20_000


async def remove_old(db: Database, *, samples_hours: int, averages_days: int, log_days: int, events_days: int) -> None:
    """Deletes chart points, log lines, events, failures and sessions that are older or more than allowed."""
    now = db.now()
    async with db.transaction() as session:
        await session.execute(delete(HealthSample).where(HealthSample.at < now - timedelta(hours=samples_hours)))
        await session.execute(delete(HealthAverage).where(HealthAverage.at < now - timedelta(days=averages_days)))
        await session.execute(delete(Event).where(Event.at < now - timedelta(days=events_days)))
        await session.execute(delete(Alarm).where(Alarm.resolved_at < now - timedelta(days=events_days)))
        await session.execute(delete(Repair).where(Repair.ended_at < now - timedelta(days=events_days)))
        await session.execute(delete(LoginFailure).where(LoginFailure.at < now - timedelta(days=1)))
        await session.execute(delete(AdminSession).where(AdminSession.expires_at < now - timedelta(days=7)))
    async with db.transaction() as session:
        await session.execute(_FORGET_LOGS, {"before": now - timedelta(days=log_days)})
    async with db.transaction() as session:
        before = {"before": now - timedelta(days=log_days), "head": OPERATION_HEAD, "tail": OPERATION_TAIL}
        await session.execute(_FORGET_OPERATION_LOGS, before)
        await session.execute(_CUT_OPERATION_LOGS, before)


# Logs of machines that are gone; those of living ones are bounded as they come.
_FORGET_LOGS = text("""
WITH gone AS (SELECT id FROM vms WHERE status = 'destroyed' AND status_changed_at < :before),
     sources AS (DELETE FROM vm_log_sources USING gone WHERE vm_id = gone.id)
DELETE FROM vm_logs USING gone WHERE vm_id = gone.id""")
_FORGET_OPERATION_LOGS = text("""
DELETE FROM operation_logs USING operations
WHERE operations.id = operation_id AND operations.finished_at < :before""")
# Once an operation has ended; one line says how many are gone.
_CUT_OPERATION_LOGS = text("""
WITH long AS (
    SELECT operation_id, count(*) - :head - :tail AS gone
    FROM operation_logs JOIN operations AS o ON o.id = operation_id
    WHERE o.finished_at IS NOT NULL GROUP BY operation_id HAVING count(*) > :head + :tail + 1
), bounds AS (
    SELECT operation_id, gone,
           (SELECT id FROM operation_logs AS l WHERE l.operation_id = long.operation_id
            ORDER BY id OFFSET :head LIMIT 1) AS first,
           (SELECT id FROM operation_logs AS l WHERE l.operation_id = long.operation_id
            ORDER BY id DESC OFFSET :tail LIMIT 1) AS last
    FROM long
), told AS (
    UPDATE operation_logs AS line
    SET level = 'gap', message = '… ' || to_char(gone, 'FM999,999,999') || ' lines left out …'
    FROM bounds WHERE line.id = bounds.first
)
DELETE FROM operation_logs AS line USING bounds
WHERE line.operation_id = bounds.operation_id AND line.id > bounds.first AND line.id <= bounds.last""")
