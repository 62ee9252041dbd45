"""How a command comes to an agent: as a row, with the transaction that it belongs to."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from backend.models import Command
from backend.request_ids import request_data
from backend.states import CommandKind, CommandStatus


def queue_command(
    session: AsyncSession,
    vm_id: int,
    kind: CommandKind,
    *,
    at: datetime,
    deadline_s: int,
    claim_id: int | None = None,
    payload: dict[str, Any] | None = None,
) -> Command:
    """Queues a command; the commit's notice wakes the agent's long poll. It bears the id of the present request."""
    command = Command(
        vm_id=vm_id,
        claim_id=claim_id,
        kind=kind,
        payload={**(payload or {}), **request_data()},
        status=CommandStatus.QUEUED,
        created_at=at,
        deadline_at=at + timedelta(seconds=deadline_s),
    )
    session.add(command)
    return command
