"""The one place where a status changes: refuses illegal moves and writes the event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from backend.errors import IllegalMove
from backend.models import Claim, Command, Event, Operation, Vm
from backend.redaction import redact
from backend.request_ids import request_data
from backend.services.actor import Actor
from backend.states import (
    CLAIM_MOVES,
    COMMAND_MOVES,
    OPERATION_MOVES,
    VM_MOVES,
    ClaimStatus,
    CommandStatus,
    OperationStatus,
    VmStatus,
)

_Status = TypeVar("_Status", bound=StrEnum)


def record_event(
    session: AsyncSession,
    kind: str,
    message: str,
    *,
    actor: Actor,
    at: datetime,
    pool_id: int | None = None,
    vm_id: int | None = None,
    claim_id: int | None = None,
    operation_id: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Appends a line of history within the session's transaction.

    Secrets in ``message`` are struck out; ``data`` must hold none.
    """
    session.add(
        Event(
            at=at,
            actor=actor.name,
            address=actor.address,
            kind=kind,
            message=redact(message),
            pool_id=pool_id,
            vm_id=vm_id,
            claim_id=claim_id,
            operation_id=operation_id,
            data={**(data or {}), **request_data()},
        )
    )


def move_vm(
    session: AsyncSession,
    vm: Vm,
    to: VmStatus,
    *,
    actor: Actor,
    at: datetime,
    reason: str | None = None,
    claim_id: int | None = None,
    operation_id: int | None = None,
) -> None:
    """Moves a VM that this transaction holds locked.

    Raises:
        IllegalMove: the table of transitions does not hold this move.
    """
    _check(VM_MOVES, VmStatus(vm.status), to, vm.hostname)
    was, vm.status, vm.status_changed_at, vm.updated_at = vm.status, to, at, at
    vm.reason = reason = _told(reason)
    if to is VmStatus.DESTROYED:
        vm.destroyed_at = at
    record_event(
        session,
        f"vm.{to}",
        f"{vm.hostname} is {to}" + (f": {reason}" if reason else ""),
        actor=actor,
        at=at,
        pool_id=vm.pool_id,
        vm_id=vm.id,
        claim_id=claim_id,
        operation_id=operation_id,
        data={"was": was},
    )


def move_claim(
    session: AsyncSession, claim: Claim, to: ClaimStatus, *, actor: Actor, at: datetime, reason: str | None = None
) -> None:
    """Moves a claim that this transaction holds locked.

    Raises:
        IllegalMove: the table of transitions does not hold this move.
    """
    _check(CLAIM_MOVES, ClaimStatus(claim.status), to, f"the claim of {claim.email}")
    was, claim.status, claim.status_changed_at = claim.status, to, at
    claim.reason = reason = _told(reason)
    if not CLAIM_MOVES[to]:
        claim.ended_at = at
    record_event(
        session,
        f"claim.{to}",
        f"The claim of {claim.email} is {to}" + (f": {reason}" if reason else ""),
        actor=actor,
        at=at,
        pool_id=claim.pool_id,
        vm_id=claim.vm_id,
        claim_id=claim.id,
        data={"was": was},
    )


def move_operation(
    session: AsyncSession,
    operation: Operation,
    to: OperationStatus,
    *,
    actor: Actor,
    at: datetime,
    reason: str | None = None,
) -> None:
    """Moves an operation that this transaction holds locked.

    Raises:
        IllegalMove: the table of transitions does not hold this move.
    """
    _check(OPERATION_MOVES, OperationStatus(operation.status), to, f"operation {operation.id}")
    operation.status = to
    operation.reason = reason = _told(reason)
    if to is OperationStatus.RUNNING:
        operation.started_at = at
    elif not OPERATION_MOVES[to]:
        operation.finished_at, operation.lease_owner, operation.lease_expires_at = at, None, None
    record_event(
        session,
        f"operation.{to}",
        f"Operation {operation.id} ({operation.kind}) is {to}" + (f": {reason}" if reason else ""),
        actor=actor,
        at=at,
        pool_id=operation.pool_id,
        operation_id=operation.id,
    )


def move_command(command: Command, to: CommandStatus, *, at: datetime, detail: str | None = None) -> None:
    """Moves a command that this transaction holds locked. Commands write no event of their own: their effect does.

    Raises:
        IllegalMove: the table of transitions does not hold this move.
    """
    _check(COMMAND_MOVES, CommandStatus(command.status), to, f"command {command.id}")
    command.status = to
    if to is CommandStatus.DELIVERED:
        command.delivered_at = at
    else:
        command.finished_at, command.detail = at, _told(detail)


def _told(reason: str | None) -> str | None:
    """Reasons are other people's words: an agent's, Terraform's."""
    return redact(reason) if reason else reason


def _check(table: Mapping[_Status, frozenset[_Status]], current: _Status, to: _Status, what: str) -> None:
    if to not in table[current]:
        allowed = ", ".join(sorted(table[current])) or "nothing: this is final"
        raise IllegalMove(f"{what} is {current} and cannot become {to} (allowed: {allowed}).")
