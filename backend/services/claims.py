"""Claims: one click to a seat, a place in line, and giving it back."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound, SeatExists, Unauthenticated, Unavailable
from backend.models import Claim, Pool, SeatLink, Vm
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.pools import check_open, get_pool_row
from backend.services.seat_browsers import add_browser, holds, is_open_in
from backend.services.sessions import find_free_vm, is_anyone_waiting, list_held, lock_claim, seat, serve_line, vacate
from backend.services.tokens import hash_token, new_token
from backend.services.views import ClaimView
from backend.states import OPEN_CLAIM, ClaimStatus, CrdStatus, VmStatus

SEAT_LINK_S = 24 * 3600
# Deliberately loose (one @, no spaces, no control or markup characters): the e-mail is a label, never a proof.
_EMAIL = re.compile(r"[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,64}@[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,189}")


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim, whether this very request made it, its place in line, and a link for whoever came without a cookie.

    All of it comes out of one transaction: either the person is told everything, or nothing was kept.
    """

    claim: ClaimView
    created: bool
    position: int | None
    link: str | None


def check_email(email: str) -> str:
    """The e-mail, trimmed.

    Raises:
        InvalidInput: it is not of the form name@place, or longer than 254 characters.
    """
    trimmed = email.strip()
    if len(trimmed) > 254 or not _EMAIL.fullmatch(trimmed):
        raise InvalidInput("Enter an e-mail address, such as ada@example.org.", code="invalid_email")
    return trimmed


async def request_claim(
    db: Database,
    pool_name: str,
    email: str,
    *,
    owner_hash: bytes | None,
    idempotency_key: str | None = None,
    address: str | None = None,
    user_agent: str | None = None,
) -> ClaimResult:
    """Claims a seat, or a place in line. The same browser (or idempotency key) asking again gets what it has.

    Raises:
        InvalidInput: not an e-mail.
        NotFound, Conflict: no such pool, or it is closed.
        SeatExists: the e-mail holds a seat in this pool that this browser does not own.
    """
    email = check_email(email)
    actor = Actor.researcher(email, address)
    key_hash = hash_token(idempotency_key) if idempotency_key else None
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        check_open(pool)
        claim = await _insert_waiting(session, pool.id, email, owner_hash, key_hash, db)
        created = claim is not None
        if claim is None:
            claim = await _find_own(session, pool.id, email, owner_hash, key_hash)
        else:
            if owner_hash is not None:
                await add_browser(session, db, claim, owner_hash, address=address, user_agent=user_agent)
            await _seat_or_line_up(session, db, claim, pool, actor)
        result = ClaimResult(
            claim=await _view(session, claim, pool),
            created=created,
            position=await _find_position(session, claim),
            link=_add_link(session, db, claim.id) if owner_hash is None else None,
        )
    return await _look_again(db, result) if created and result.position is not None else result


async def serve_waiting(db: Database, pool_id: int) -> int:
    """Lets in whoever waits for this pool, as far as VMs are free. Returns how many were let in."""
    async with db.transaction() as session:
        return await serve_line(session, pool_id, at=db.now())


async def list_pools_waiting(db: Database) -> list[int]:
    """The ids of pools in which somebody waits."""
    async with db.transaction() as session:
        query = select(Claim.pool_id).where(Claim.status == ClaimStatus.WAITING).distinct()
        return list(await session.scalars(query))


async def get_claim(db: Database, claim_id: int) -> ClaimView:
    """One claim.

    Raises:
        NotFound: no such claim.
    """
    found = await list_claims(db, ids=[claim_id])
    if not found:
        raise NotFound("There is no such seat.")
    return found[0]


async def list_claims(
    db: Database, *, ids: Collection[int] | None = None, owner_hash: bytes | None = None, only_open: bool = False
) -> list[ClaimView]:
    """Claims, newest first: those of ``ids``, of one browser, or all; open ones only if asked."""
    query = (
        select(Claim, Pool.name, Vm.hostname)
        .select_from(Claim)
        .join(Pool, Pool.id == Claim.pool_id)
        .outerjoin(Vm, Vm.id == Claim.vm_id)
        .order_by(Claim.id.desc())
    )
    if ids is not None:
        query = query.where(Claim.id.in_(ids))
    if owner_hash is not None:
        query = query.where(is_open_in(owner_hash))
    if only_open:
        query = query.where(Claim.status.in_(OPEN_CLAIM))
    async with db.transaction() as session:
        return [_view_of(*row) for row in (await session.execute(query))]


async def get_position(db: Database, claim_id: int) -> int | None:
    """The place in line, from 1; None once it is not waiting."""
    async with db.transaction() as session:
        claim = await session.get(Claim, claim_id)
        return None if claim is None else await _find_position(session, claim)


async def release_own_claim(db: Database, claim_id: int, *, owner_hash: bytes, address: str | None = None) -> None:
    """The researcher gives the seat (or the place in line) back. Ending what has ended changes nothing.

    Raises:
        NotFound: this browser owns no such claim.
    """
    async with db.transaction() as session:
        claim = await lock_claim(session, claim_id)
        if claim is None or not await holds(session, claim.id, owner_hash):
            raise NotFound("This browser holds no such seat.")
        if claim.status in OPEN_CLAIM:
            actor = Actor.researcher(claim.email, address)
            await vacate(session, claim, ClaimStatus.RELEASED, actor=actor, at=db.now())


async def release_vms(db: Database, hostnames: Collection[str], *, actor: Actor) -> list[str]:
    """An admin takes seats back. Returns the hostnames whose seat was ended.

    Raises:
        Conflict: none of these VMs is in use.
    """
    actor.must_operate()
    in_use = (
        select(Vm).where(Vm.hostname.in_(hostnames), Vm.status == VmStatus.IN_USE).order_by(Vm.id).with_for_update()
    )
    why = "taken back by an organiser"
    async with db.transaction() as session:
        vms = {vm.id: vm.hostname for vm in await session.scalars(in_use)}
        if not vms:
            raise Conflict("None of these machines is in use.", code="not_in_use")
        for claim in await list_held(session, vms):
            await vacate(session, claim, ClaimStatus.RELEASED, actor=actor, at=db.now(), reason=why)
        return list(vms.values())


async def open_seat_link(
    db: Database, token: str, *, owner_hash: bytes, address: str | None = None, user_agent: str | None = None
) -> ClaimView:
    """Opens the link's seat in this browser.

    Raises:
        Unauthenticated: the link is unknown, used or expired.
        Conflict: this browser already holds another seat in that pool.
    """
    async with db.transaction() as session:
        link = await session.scalar(select(SeatLink).where(SeatLink.token_hash == hash_token(token)).with_for_update())
        if link is None or link.used_at is not None or link.expires_at <= db.now():
            raise Unauthenticated("This seat link was used already or has expired.", code="link_spent")
        claim = await session.get_one(Claim, link.claim_id, with_for_update=True)
        await add_browser(session, db, claim, owner_hash, address=address, user_agent=user_agent)
        link.used_at = db.now()
        record_event(
            session,
            "claim.opened",
            f"The seat of {claim.email} was opened by its link",
            actor=Actor.researcher(claim.email, address),
            at=db.now(),
            pool_id=claim.pool_id,
            vm_id=claim.vm_id,
            claim_id=claim.id,
        )
        return await _view(session, claim, await session.get_one(Pool, claim.pool_id))


async def _seat_or_line_up(session: AsyncSession, db: Database, claim: Claim, pool: Pool, actor: Actor) -> None:
    vm = None if await is_anyone_waiting(session, pool.id, claim.id) else await find_free_vm(session, pool.id)
    if vm is not None:
        seat(session, claim, vm, actor=actor, at=db.now())
        return
    message = f"{claim.email} stands in line for {pool.name}"
    at = db.now()
    record_event(session, "claim.waiting", message, actor=actor, at=at, pool_id=pool.id, claim_id=claim.id)


async def _look_again(db: Database, result: ClaimResult) -> ClaimResult:
    """A VM may have come free while the claim was not yet visible to its giver. Whatever comes of this, it stands."""
    try:
        async with db.transaction() as session:
            await serve_line(session, result.claim.pool_id, at=db.now())
            claim = await session.get_one(Claim, result.claim.id)
            view = await _view(session, claim, await session.get_one(Pool, claim.pool_id))
            return replace(result, claim=view, position=await _find_position(session, claim))
    except Unavailable:
        return result


async def _find_position(session: AsyncSession, claim: Claim) -> int | None:
    if claim.status != ClaimStatus.WAITING:
        return None
    return await session.scalar(
        select(func.count()).where(
            Claim.pool_id == claim.pool_id, Claim.status == ClaimStatus.WAITING, Claim.id <= claim.id
        )
    )


def _add_link(session: AsyncSession, db: Database, claim_id: int) -> str:
    """A fresh secret that opens this seat in a browser once, within a day."""
    token = new_token()
    expires_at = db.now() + timedelta(seconds=SEAT_LINK_S)
    session.add(SeatLink(claim_id=claim_id, token_hash=hash_token(token), expires_at=expires_at))
    return token


async def _insert_waiting(
    session: AsyncSession, pool_id: int, email: str, owner_hash: bytes | None, key_hash: bytes | None, db: Database
) -> Claim | None:
    row = insert(Claim).values(
        pool_id=pool_id,
        email=email,
        owner_hash=owner_hash,
        idempotency_hash=key_hash,
        status=ClaimStatus.WAITING,
        status_changed_at=db.now(),
        created_at=db.now(),
    )
    return await session.scalar(row.on_conflict_do_nothing().returning(Claim))


async def _find_own(
    session: AsyncSession, pool_id: int, email: str, owner_hash: bytes | None, key_hash: bytes | None
) -> Claim:
    is_open = (Claim.pool_id == pool_id, Claim.status.in_(OPEN_CLAIM))
    if owner_hash is not None:
        mine = await session.scalar(select(Claim).where(*is_open, is_open_in(owner_hash)))
        if mine is not None:
            return mine
    if key_hash is not None:
        mine = await session.scalar(select(Claim).where(*is_open, Claim.idempotency_hash == key_hash))
        if mine is not None and mine.email.lower() == email.lower():
            return mine
    raise SeatExists


async def _view(session: AsyncSession, claim: Claim, pool: Pool) -> ClaimView:
    vm = await session.get(Vm, claim.vm_id) if claim.vm_id is not None else None
    return _view_of(claim, pool.name, vm.hostname if vm else None)


def _view_of(claim: Claim, pool: str, hostname: str | None) -> ClaimView:
    return ClaimView(
        id=claim.id,
        pool_id=claim.pool_id,
        pool=pool,
        email=claim.email,
        status=ClaimStatus(claim.status),
        reason=claim.reason,
        vm_id=claim.vm_id,
        hostname=hostname,
        created_at=claim.created_at,
        status_changed_at=claim.status_changed_at,
        ended_at=claim.ended_at,
        ends_at=claim.ends_at,
        warned_at=claim.warned_at,
        last_active_at=claim.last_active_at,
        crd_status=CrdStatus(claim.crd_status) if claim.crd_status else None,
        crd_detail=claim.crd_detail,
        crd_link=claim.crd_link,
    )
