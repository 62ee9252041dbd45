"""Terminals: who may open one, who may look into it, and when it is over. What is typed and shown never comes here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, Gone, NotFound
from backend.models import Claim, Pool, SeatBrowser, Terminal, TerminalWatch, Vm
from backend.services.actor import Actor
from backend.services.command_queue import queue_command
from backend.services.moves import record_event
from backend.services.sessions import lock_claim
from backend.services.terminal_ends import SEAT_ENDED, end_terminals
from backend.states import ClaimStatus, CommandKind

MOST_A_SEAT = 8
OPEN_DEADLINE_S = 60
ISOLATIONS = ("container", "user", "none")


@dataclass(frozen=True, slots=True)
class TerminalView:
    """A terminal. ``isolation`` says what keeps it apart from the rest of its machine, once the agent has told."""

    id: int
    claim_id: int
    hostname: str
    isolation: str | None
    opened_at: datetime
    ended_at: datetime | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with a terminal now: who may use it (hashes of cookies), which admins may look, may they type.

    ``over`` is why nobody may any more.
    """

    claim_id: int
    over: str | None
    owners: frozenset[bytes] = frozenset()
    watchers: Mapping[str, bool] = field(default_factory=dict)


async def request_terminal(db: Database, claim_id: int, *, actor: Actor) -> TerminalView:
    """Opens a terminal: the claim's agent is told to start a shell and to dial in with it.

    Raises:
        Conflict: the seat is not active, its pool offers no terminal, or it has 8 open already.
    """
    async with db.transaction() as session:
        claim = await lock_claim(session, claim_id)
        if claim is None or claim.status != ClaimStatus.ACTIVE or claim.vm_id is None:
            raise Conflict("The seat is not ready: a terminal needs an active one.", code="seat_not_active")
        pool = await session.get_one(Pool, claim.pool_id)
        if not pool.terminal:
            raise Conflict("This workshop offers no terminal.", code="no_terminal")
        vm = await session.get_one(Vm, claim.vm_id)
        is_open = (Terminal.claim_id == claim.id, Terminal.ended_at.is_(None))
        count = await session.scalar(select(func.count()).select_from(Terminal).where(*is_open))
        if (count or 0) >= MOST_A_SEAT:
            raise Conflict(f"A seat has at most {MOST_A_SEAT} terminals; close one first.", code="too_many_terminals")
        terminal = Terminal(claim_id=claim.id, vm_id=vm.id, opened_at=db.now())
        session.add(terminal)
        await session.flush()
        queue_command(
            session,
            terminal.vm_id,
            CommandKind.OPEN_TERMINAL,
            at=db.now(),
            deadline_s=OPEN_DEADLINE_S,
            claim_id=terminal.claim_id,
            payload={"claim_id": terminal.claim_id, "terminal_id": terminal.id},
        )
        record_event(
            session,
            "terminal.opened",
            f"Terminal {terminal.id} was opened on {vm.hostname}",
            actor=actor,
            at=db.now(),
            pool_id=pool.id,
            vm_id=vm.id,
            claim_id=claim.id,
        )
        return _view_of(terminal, vm)


async def list_terminals(db: Database, claim_id: int, *, only_open: bool = True) -> list[TerminalView]:
    """The terminals of a claim, oldest first."""
    query = select(Terminal, Vm).join(Vm, Vm.id == Terminal.vm_id).where(Terminal.claim_id == claim_id)
    if only_open:
        query = query.where(Terminal.ended_at.is_(None))
    async with db.transaction() as session:
        return [_view_of(terminal, vm) for terminal, vm in await session.execute(query.order_by(Terminal.id))]


async def end_terminal(db: Database, claim_id: int, terminal_id: int, *, actor: Actor) -> None:
    """Its owner closes a terminal: the shell and what runs in its foreground end. Closing it again changes nothing.

    Raises:
        NotFound: the claim has no such terminal.
    """
    async with db.transaction() as session:
        terminal = await session.get(Terminal, terminal_id)
        if terminal is None or terminal.claim_id != claim_id:
            raise NotFound("This seat has no such terminal.", code="unknown_terminal")
        which = Terminal.id == terminal_id
        await end_terminals(session, which, actor=actor, at=db.now(), reason="it was closed")


async def check_agent(db: Database, terminal_id: int, vm_id: int) -> None:
    """Makes sure that this VM has this terminal and that it is wanted.

    Raises:
        NotFound: it is no terminal of this VM.
        Gone: it is over.
    """
    standing = (await list_standing(db, [terminal_id])).get(terminal_id)
    async with db.transaction() as session:
        terminal = await session.get(Terminal, terminal_id)
    if standing is None or terminal is None or terminal.vm_id != vm_id:
        raise NotFound("This machine has no such terminal.", code="unknown_terminal")
    if standing.over:
        raise Gone(f"This terminal is over: {standing.over}.")


async def record_connected(db: Database, vm_id: int, terminal_id: int, isolation: str) -> None:
    """The agent has dialled in with a terminal, and says how its sessions are kept apart."""
    async with db.transaction() as session:
        # The VM first, as whoever ends its seat does at the same moment.
        vm = await session.get(Vm, vm_id, with_for_update=True)
        if vm is not None and isolation in ISOLATIONS and vm.facts.get("isolation") != isolation:
            vm.facts = {**vm.facts, "isolation": isolation}
        which = (Terminal.id == terminal_id, Terminal.vm_id == vm_id, Terminal.connected_at.is_(None))
        await session.execute(update(Terminal).where(*which).values(connected_at=db.now()))


async def record_exit(db: Database, vm_id: int, terminal_id: int, status: int, *, actor: Actor) -> str:
    """The shell has ended. Returns the words for it."""
    reason = "the shell has ended" + (f" with status {status}" if status else "")
    async with db.transaction() as session:
        which = (Terminal.id == terminal_id) & (Terminal.vm_id == vm_id)
        await end_terminals(session, which, actor=actor, at=db.now(), reason=reason)
    return reason


async def list_standing(db: Database, terminal_ids: Collection[int]) -> dict[int, Standing]:
    """How it stands with these terminals; of one that does not exist nothing is said."""
    query = (
        select(Terminal, Claim.status, Claim.vm_id)
        .join(Claim, Claim.id == Terminal.claim_id)
        .where(Terminal.id.in_(terminal_ids))
    )
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
        open_claims = {terminal.claim_id for terminal, status, _ in rows if status == ClaimStatus.ACTIVE}
        owners, watchers = await _list_owners(session, open_claims), await _list_watchers(session, open_claims)
    return {
        terminal.id: Standing(
            terminal.claim_id,
            _why_over(terminal, status, vm_id),
            owners.get(terminal.claim_id, frozenset()),
            watchers.get(terminal.claim_id, {}),
        )
        for terminal, status, vm_id in rows
    }


def _why_over(terminal: Terminal, status: str, vm_id: int | None) -> str | None:
    if terminal.ended_at is not None:
        return terminal.reason or "it has ended"
    return None if status == ClaimStatus.ACTIVE and vm_id == terminal.vm_id else SEAT_ENDED


async def _list_owners(session: AsyncSession, claim_ids: Collection[int]) -> Mapping[int, frozenset[bytes]]:
    query = select(SeatBrowser.claim_id, SeatBrowser.owner_hash).where(
        SeatBrowser.claim_id.in_(claim_ids), SeatBrowser.ended_at.is_(None)
    )
    owners: dict[int, set[bytes]] = defaultdict(set)
    for claim_id, owner_hash in await session.execute(query):
        owners[claim_id].add(owner_hash)
    return {claim_id: frozenset(hashes) for claim_id, hashes in owners.items()}


async def _list_watchers(session: AsyncSession, claim_ids: Collection[int]) -> Mapping[int, Mapping[str, bool]]:
    query = select(TerminalWatch).where(
        TerminalWatch.claim_id.in_(claim_ids), TerminalWatch.agreed_at.is_not(None), TerminalWatch.ended_at.is_(None)
    )
    watchers: dict[int, dict[str, bool]] = defaultdict(dict)
    for watch in await session.scalars(query):
        watchers[watch.claim_id][watch.admin] = watch.may_type
    return watchers


def _view_of(terminal: Terminal, vm: Vm) -> TerminalView:
    return TerminalView(
        id=terminal.id,
        claim_id=terminal.claim_id,
        hostname=vm.hostname,
        isolation=vm.facts.get("isolation"),
        opened_at=terminal.opened_at,
        ended_at=terminal.ended_at,
        reason=terminal.reason,
    )
