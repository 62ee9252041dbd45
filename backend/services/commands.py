"""Commands: stored work for agents; delivered at least once, acknowledged, and acted on once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.db.express import Connection
from backend.errors import NotFound
from backend.models import Command, Vm
from backend.models.base import quoted
from backend.services import sessions
from backend.services.actor import Actor
from backend.services.moves import move_command
from backend.spans import record_span
from backend.states import OPEN_COMMAND, CommandKind, CommandStatus

# Of one machine's commands.
AT_ONCE = 50
_OPEN = f"""
    SELECT asked.vm_id, found.status, found.id, found.kind, found.payload
    FROM unnest(%(vms)s::int[]) AS asked (vm_id), LATERAL (
        SELECT id, status, kind, payload FROM commands
        WHERE vm_id = asked.vm_id AND status IN ({quoted(OPEN_COMMAND)}) ORDER BY id LIMIT {AT_ONCE}
    ) AS found
    ORDER BY found.id"""
# Whoever destroys 500 machines has 500 agents come at once. What is locked is being changed, which is told: whoever
# waits for it looks again.
_DELIVER = f"""
    UPDATE commands SET status = '{CommandStatus.DELIVERED}', delivered_at = %(at)s WHERE id IN (
        SELECT id FROM commands
        WHERE id = ANY(%(ids)s::bigint[]) AND status = '{CommandStatus.QUEUED}' FOR UPDATE SKIP LOCKED
    ) RETURNING id"""


@dataclass(frozen=True, slots=True)
class CommandView:
    """A command as its agent gets it."""

    id: int
    kind: CommandKind
    payload: dict[str, Any]


async def list_commands_for_agent(db: Database, vm_id: int) -> list[CommandView]:
    """What the agent of this VM has still to do, oldest first; marks it delivered. Repeats what has no result yet."""
    # Hundreds of agents ask at the same moment, and most of them for nothing: those share one plain read.
    found = await db.together(_find_open, _OPEN, vm_id)
    queued = [command.id for status, command in found if status == CommandStatus.QUEUED]
    delivered = await db.together(_deliver, _DELIVER, (db.now(), queued)) if queued else set()
    return [command for status, command in found if status != CommandStatus.QUEUED or command.id in delivered]


async def _find_open(connection: Connection, query: str, vm_ids: list[int]) -> list[list[tuple[str, CommandView]]]:
    """The open commands of each of these VMs, with their status."""
    found: dict[int, list[tuple[str, CommandView]]] = {vm_id: [] for vm_id in vm_ids}
    rows = await (await connection.execute(query, {"vms": [*found]})).fetchall()
    for vm_id, status, command_id, kind, payload in rows:
        found[vm_id].append((status, CommandView(command_id, CommandKind(kind), payload)))
    return [found[vm_id] for vm_id in vm_ids]


async def _deliver(connection: Connection, query: str, asked: list[tuple[datetime, list[int]]]) -> list[set[int]]:
    """Marks queued commands delivered. Returns those of each agent that were still to be done."""
    values = {"ids": [command_id for _, ids in asked for command_id in ids], "at": max(at for at, _ in asked)}
    delivered = {row[0] for row in await (await connection.execute(query, values)).fetchall()}
    return [delivered.intersection(ids) for _, ids in asked]


async def record_command_result(
    db: Database, vm_id: int, command_id: int, *, succeeded: bool, detail: str, data: dict[str, Any], actor: Actor
) -> None:
    """Stores a result and does what follows from it. A repeated report changes nothing.

    Raises:
        NotFound: this VM has no such command.
    """
    async with db.transaction() as session:
        vm = await session.get(Vm, vm_id, with_for_update=True)
        command = await session.get(Command, command_id, with_for_update=True)
        if vm is None or command is None or command.vm_id != vm_id:
            raise NotFound("There is no such command for this machine.", code="unknown_command")
        if command.status not in OPEN_COMMAND:
            return
        if command.status == CommandStatus.QUEUED:
            move_command(command, CommandStatus.DELIVERED, at=db.now())
        status = CommandStatus.SUCCEEDED if succeeded else CommandStatus.FAILED
        move_command(command, status, at=db.now(), detail=detail[:2_000])
        command.data = data
        # Before what follows, which may seat somebody here: what was read of the machine counts no more then.
        _record_span(command, vm)
        await sessions.conclude(session, db.now(), vm, command, actor=actor)


async def expire_commands(db: Database) -> int:
    """Expires commands past their deadline and does what follows. Returns how many there were."""
    overdue = (
        select(Command)
        .where(Command.status.in_(OPEN_COMMAND), Command.deadline_at < db.now())
        .order_by(Command.vm_id)
        .limit(200)
    )
    async with db.transaction() as session:
        commands: Sequence[Command] = list(await session.scalars(overdue))
        for command in commands:
            vm = await session.get(Vm, command.vm_id, with_for_update=True)
            await session.refresh(command, with_for_update=True)
            if vm is None or command.status not in OPEN_COMMAND:
                continue
            move_command(command, CommandStatus.EXPIRED, at=db.now(), detail="no answer before its deadline")
            _record_span(command, vm)
            await sessions.conclude(session, db.now(), vm, command, actor=Actor.rule("command_deadline"))
        return len(commands)


async def cancel_open_commands(session: AsyncSession, vm_ids: Collection[int], *, detail: str, db: Database) -> None:
    """Expires every open command of these VMs, without consequences: what they were for is over."""
    await session.execute(
        update(Command)
        .where(Command.vm_id.in_(vm_ids), Command.status.in_(OPEN_COMMAND))
        .values(status=CommandStatus.EXPIRED, finished_at=db.now(), detail=detail)
    )


def _record_span(command: Command, vm: Vm) -> None:
    """What the command took, from being asked for to its result."""
    record_span(
        f"command {command.kind}",
        {
            "lablink.command_id": command.id,
            "lablink.hostname": vm.hostname,
            "lablink.command_status": command.status,
        },
        began_at=command.created_at,
        ended_at=command.finished_at or command.created_at,
        request_id=str(command.payload.get("request_id") or ""),
        has_failed=command.status != CommandStatus.SUCCEEDED,
    )
