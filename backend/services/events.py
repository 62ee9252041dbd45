"""Events: read the history."""

from __future__ import annotations

from sqlalchemy import select

from backend.db.engine import Database
from backend.models import Event
from backend.services.views import EventView


async def list_events(
    db: Database,
    *,
    vm_id: int | None = None,
    operation_id: int | None = None,
    words: str | None = None,
    before_id: int | None = None,
    limit: int = 200,
) -> list[EventView]:
    """Events, newest first: of one VM or operation, those with ``words`` in them, or all; older than ``before_id``."""
    query = select(Event).order_by(Event.id.desc()).limit(limit)
    if vm_id is not None:
        query = query.where(Event.vm_id == vm_id)
    if operation_id is not None:
        query = query.where(Event.operation_id == operation_id)
    if before_id is not None:
        query = query.where(Event.id < before_id)
    if words:
        query = query.where(
            Event.message.icontains(words, autoescape=True)
            | Event.actor.icontains(words, autoescape=True)
            | Event.kind.icontains(words, autoescape=True)
        )
    async with db.transaction() as session:
        return [_view_of(row) for row in await session.scalars(query)]


def _view_of(row: Event) -> EventView:
    return EventView(
        id=row.id,
        at=row.at,
        actor=row.actor,
        address=row.address,
        kind=row.kind,
        message=row.message,
        pool_id=row.pool_id,
        vm_id=row.vm_id,
        claim_id=row.claim_id,
        operation_id=row.operation_id,
    )
