"""What an agent says of Chrome Remote Desktop, and what the seat's page makes of it.

Steps within somebody else's transaction: VM, claim and command are locked already.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import NotFound
from backend.models import Claim, Command, Vm
from backend.redaction import redact
from backend.services.actor import Actor
from backend.services.moves import move_command, record_event
from backend.states import OPEN_COMMAND, ClaimStatus, CommandKind, CommandStatus, CrdStatus, VmStatus

MAX_DETAIL = 500
_HAS_STEPS = frozenset({CommandKind.START_CRD, CommandKind.END_SESSION})
_LINK = "https://remotedesktop.google.com/access"
_HOST_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
_READY = "Your desktop is ready. Open it, and type the PIN when Google asks for one."
_LATE = "Your machine did not answer in time, and Google's codes live minutes. Get a new one and paste it."


async def record_command_progress(db: Database, vm_id: int, command_id: int, *, detail: str, actor: Actor) -> None:
    """Stores how far an agent is with a command that stays open: with Chrome Remote Desktop, or with cleaning.

    Raises:
        NotFound: this VM has no such command.
    """
    async with db.transaction() as session:
        vm = await session.get(Vm, vm_id, with_for_update=True)
        command = await session.get(Command, command_id)
        if vm is None or command is None or command.vm_id != vm_id:
            raise NotFound("There is no such command for this machine.", code="unknown_command")
        claim = await session.get(Claim, command.claim_id, with_for_update=True) if command.claim_id else None
        await session.refresh(command, with_for_update=True)
        if command.status not in OPEN_COMMAND or command.kind not in _HAS_STEPS:
            return
        if command.status == CommandStatus.QUEUED:
            move_command(command, CommandStatus.DELIVERED, at=db.now())
        if command.kind == CommandKind.END_SESSION:
            if vm.status == VmStatus.CLEANING:
                # Why it is as it is: for the pages alone, until it is clean or has failed.
                vm.reason, vm.updated_at = redact(detail)[:MAX_DETAIL], db.now()
        elif claim is not None and _is_on(claim, vm):
            _show(session, db.now(), vm, claim, CrdStatus.STARTING, detail, actor)


def conclude_crd(session: AsyncSession, at: datetime, vm: Vm, command: Command, claim: Claim, actor: Actor) -> None:
    """What follows from a finished or expired command: a link, or a reason and the way to another try."""
    if not _is_on(claim, vm):
        return
    if command.status == CommandStatus.SUCCEEDED:
        claim.crd_link = _link(command.data)
        _show(session, at, vm, claim, CrdStatus.READY, _READY, actor)
        return
    vm.crd_command = None
    detail = _LATE if command.status == CommandStatus.EXPIRED else command.detail
    _show(session, at, vm, claim, CrdStatus.FAILED, detail or "It did not work. Get a new code and try again.", actor)


def _is_on(claim: Claim, vm: Vm) -> bool:
    """Whether the claim still sits on this machine."""
    return claim.status == ClaimStatus.ACTIVE and claim.vm_id == vm.id


def _show(
    session: AsyncSession, at: datetime, vm: Vm, claim: Claim, status: CrdStatus, detail: str, actor: Actor
) -> None:
    is_news, claim.crd_status, claim.crd_detail = claim.crd_status != status, status, detail[:MAX_DETAIL]
    # Steps within a state are for the page alone.
    if is_news:
        why = f": {claim.crd_detail}" if status is CrdStatus.FAILED else ""
        record_event(
            session,
            f"crd.{status}",
            f"Chrome Remote Desktop on {vm.hostname} is {status}{why}",
            actor=actor,
            at=at,
            pool_id=vm.pool_id,
            vm_id=vm.id,
            claim_id=claim.id,
        )


def _link(data: dict[str, Any]) -> str:
    """Where Google shows the desktop. The agent says only which; the address is ours, whatever a machine claims."""
    host_id = data.get("host_id")
    if isinstance(host_id, str) and _HOST_ID.fullmatch(host_id):
        return f"{_LINK}/session/{host_id}"
    return _LINK
