"""Messages about alarms on their way out: stored with the alarm, tried again until they are taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Alarm, AlarmDelivery
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.states import AlarmNews, Channel, DeliveryStatus

FIRST_PAUSE_S, LAST_PAUSE_S = 5, 900
GIVE_UP_S = 86_400
# A sender that takes a message and dies holds it for no longer than this; a trial takes less.
LEASE_S = 60
_RULE = Actor.rule("alarm")


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to be sent. ``attempts`` counts this one. ``message``: see ``queue_message``."""

    id: int
    channel: Channel
    attempts: int
    created_at: datetime
    message: dict[str, Any]


def queue_message(
    session: AsyncSession, alarm: Alarm, news: AlarmNews, channel: Channel, *, place: str, at: datetime
) -> None:
    """Queues what is to be told of a (flushed) alarm, as it stands now, within the session's transaction."""
    message = {
        "news": news,
        "alarm_id": alarm.id,
        "kind": alarm.kind,
        "severity": alarm.severity,
        "sentence": alarm.sentence,
        "remedy": alarm.remedy,
        "opened_at": alarm.opened_at.isoformat(),
        "at": at.isoformat(),
        "place": place,
    }
    session.add(
        AlarmDelivery(
            alarm_id=alarm.id,
            channel=channel,
            message=message,
            status=DeliveryStatus.QUEUED,
            attempts=0,
            created_at=at,
            next_at=at,
        )
    )


async def take_deliveries(db: Database, channel: Channel, *, limit: int = 4) -> list[Delivery]:
    """Messages that are due, oldest first, held for ``LEASE_S``: no other process sends them meanwhile."""
    due = (
        select(AlarmDelivery)
        .where(
            AlarmDelivery.channel == channel,
            AlarmDelivery.status == DeliveryStatus.QUEUED,
            AlarmDelivery.next_at <= db.now(),
        )
        .order_by(AlarmDelivery.next_at, AlarmDelivery.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    async with db.transaction() as session:
        rows = (await session.scalars(due)).all()
        for row in rows:
            row.attempts += 1
            row.next_at = db.now() + timedelta(seconds=LEASE_S)
        return [Delivery(row.id, channel, row.attempts, row.created_at, row.message) for row in rows]


async def record_sent(db: Database, delivery_id: int) -> None:
    """The other side has taken it."""
    async with db.transaction() as session:
        row = await session.get_one(AlarmDelivery, delivery_id, with_for_update=True)
        row.status, row.finished_at, row.last_error = DeliveryStatus.SENT, db.now(), None


async def record_not_sent(db: Database, delivery_id: int, error: str) -> None:
    """The other side has not: it is tried later, and given up after a day. ``error`` must hold no secret."""
    async with db.transaction() as session:
        row = await session.get_one(AlarmDelivery, delivery_id, with_for_update=True)
        row.last_error, at = error, db.now()
        if at - row.created_at < timedelta(seconds=GIVE_UP_S):
            pause_s = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(row.attempts - 1, 16))
            row.next_at = at + timedelta(seconds=pause_s)
            return
        row.status, row.finished_at = DeliveryStatus.GIVEN_UP, at
        message = f"An alarm could not be told by {row.channel} for a day: {error}"
        record_event(session, "alarm.undelivered", message, actor=_RULE, at=at, data={"alarm_id": row.alarm_id})


async def count_waiting(db: Database) -> int:
    """How many messages wait."""
    query = select(func.count(AlarmDelivery.id)).where(AlarmDelivery.status == DeliveryStatus.QUEUED)
    async with db.transaction() as session:
        return await session.scalar(query) or 0
