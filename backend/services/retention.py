"""Retention: what grows without end is cut to size."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, text

from backend.db.engine import Database
from backend.models import AdminSession, Alarm, Event, HealthAverage, HealthSample, LoginFailure, Repair


async def remove_old(
    db: Database, *, samples_hours: int, averages_days: int, log_lines_per_vm: int, events_days: int
) -> None:
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
        await session.execute(_CUT_LOGS, {"keep": log_lines_per_vm})


_CUT_LOGS = text("""
DELETE FROM vm_logs USING (
    SELECT vms.id AS vm_id, (SELECT id FROM vm_logs WHERE vm_id = vms.id ORDER BY id DESC OFFSET :keep LIMIT 1) AS cut
    FROM vms) AS cuts
WHERE vm_logs.vm_id = cuts.vm_id AND vm_logs.id <= cuts.cut""")
