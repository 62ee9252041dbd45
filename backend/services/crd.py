"""Chrome Remote Desktop of a seat: from what the researcher pastes to a command for the machine's agent.

The paste is parsed, and only its code goes on, sealed, with a PIN that is made once for each seat. Both are forgotten
with what they were for (triggers of migration 0008): the code with the command's end, the PIN with the claim's.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.keys import KeyRing
from backend.models import Claim, Pool, Vm
from backend.services.command_queue import queue_command
from backend.services.commands import CommandView
from backend.services.crd_paste import parse_paste
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.moves import record_event
from backend.states import ClaimStatus, CommandKind, CrdStatus

# Google's codes live a few minutes: what the machine has not done by then will not work any more.
START_DEADLINE_S = 120
PIN_DIGITS = 8
_UNDERWAY = frozenset({CrdStatus.WAITING, CrdStatus.STARTING})
_ON_ITS_WAY = "The code is on its way to your machine."


@dataclass(frozen=True, slots=True)
class CrdView:
    """How far Chrome Remote Desktop is with a seat. ``detail`` is a sentence for people."""

    status: CrdStatus | None
    detail: str | None
    link: str | None


async def request_crd(db: Database, keys: KeyRing, claim_id: int, paste: str, holder: Holder) -> CrdView:
    """Has the seat's machine registered with the Google account that the pasted line is of.

    Raises:
        InvalidInput: it is not Google's line; the message says what is missing or wrong.
        NotFound: the seat is not this holder's.
        Conflict: the seat is not ready, its pool offers no Chrome Remote Desktop, or a code is on its way already.
    """
    code = parse_paste(paste)
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        vm = await _get_machine(session, claim)
        pin = _ensure_pin(claim, keys)
        claim.crd_status, claim.crd_detail, claim.crd_link = CrdStatus.WAITING, _ON_ITS_WAY, None
        vm.crd_command = "set"
        sealed = keys.seal(json.dumps({"code": code.value, "pin": pin}))
        queue_command(
            session,
            vm.id,
            CommandKind.START_CRD,
            at=db.now(),
            deadline_s=START_DEADLINE_S,
            claim_id=claim.id,
            payload={"claim_id": claim.id, "sealed": sealed},
        )
        record_event(
            session,
            "crd.requested",
            f"{claim.email} asked for Chrome Remote Desktop on {vm.hostname}",
            actor=actor_of(claim, holder),
            at=db.now(),
            pool_id=claim.pool_id,
            vm_id=vm.id,
            claim_id=claim.id,
        )
        return _view_of(claim)


async def get_crd(db: Database, claim_id: int, holder: Holder) -> CrdView:
    """How far it is.

    Raises:
        NotFound: the seat is not this holder's.
    """
    async with db.transaction() as session:
        return _view_of(await lock_held(session, claim_id, holder))


async def get_pin(db: Database, keys: KeyRing, claim_id: int, holder: Holder) -> str:
    """The PIN that Google asks for when the seat's desktop is opened: for the seat's holder alone.

    Raises:
        NotFound: the seat is not this holder's, or has no PIN (yet).
    """
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        pin = keys.unseal(claim.crd_pin) if claim.crd_pin else None
    if pin is None:
        raise NotFound("This seat has no PIN: paste Google's line first.", code="no_pin")
    return pin


def open_payload(keys: KeyRing, command: CommandView) -> dict[str, Any]:
    """A command's payload as its agent gets it: what is sealed in the database is opened here and nowhere else."""
    sealed = command.payload.get("sealed")
    if not isinstance(sealed, str):
        return command.payload
    opened = json.loads(keys.unseal(sealed) or "{}")
    return {**{key: value for key, value in command.payload.items() if key != "sealed"}, **opened}


async def _get_machine(session: AsyncSession, claim: Claim) -> Vm:
    """The machine of a claim that may have a remote desktop now; locked already, with its claim."""
    pool = await session.get_one(Pool, claim.pool_id)
    if not pool.crd:
        raise Conflict("This workshop does not offer Chrome Remote Desktop.", code="crd_not_offered")
    if claim.status != ClaimStatus.ACTIVE or claim.vm_id is None:
        raise Conflict("This works once your machine is ready, and as long as the seat is yours.", code="not_active")
    if claim.crd_status in _UNDERWAY:
        raise Conflict("A code is on its way already. Wait for what comes of it.", code="crd_underway")
    return await session.get_one(Vm, claim.vm_id)


def _ensure_pin(claim: Claim, keys: KeyRing) -> str:
    """The seat's PIN: kept for later tries, made anew if no key of ours opens it any more."""
    pin = keys.unseal(claim.crd_pin) if claim.crd_pin else None
    if pin is None:
        pin = f"{secrets.randbelow(10**PIN_DIGITS):0{PIN_DIGITS}d}"
        claim.crd_pin = keys.seal(pin)
    return pin


def _view_of(claim: Claim) -> CrdView:
    return CrdView(CrdStatus(claim.crd_status) if claim.crd_status else None, claim.crd_detail, claim.crd_link)
