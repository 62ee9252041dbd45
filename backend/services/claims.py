"""Claims: one click to a seat, a place in line, and giving it back."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database, driver_connection
from backend.errors import Conflict, Forbidden, InvalidInput, NotFound, SeatExists, Unauthenticated, Unavailable
from backend.models import Claim, Pool, SeatLink, Vm
from backend.services.actor import Actor
from backend.services.admission import NO_PROOF, Admitted, Proof, admit
from backend.services.codes import SEAT_KEY, new_code, show_code
from backend.services.emails import check_email
from backend.services.guesses import counting_guesses
from backend.services.holders import Holder, lock_held
from backend.services.join_codes import count_use
from backend.services.moves import record_event
from backend.services.pools import check_open, get_pool_row
from backend.services.seat_browsers import add_browser, is_open_in
from backend.services.seating import Asked, Entrance, Place, describe_ask, take_places
from backend.services.sessions import list_held, lock_claim, serve_line, vacate
from backend.services.tokens import hash_token, new_token
from backend.services.views import ClaimView
from backend.states import OPEN_CLAIM, Access, ClaimStatus, CrdStatus, VmStatus

SEAT_LINK_S = 24 * 3600
# The pools in which somebody waits although there may be a machine for them; one look into the offer for each.
POOLS_WAITING = """
SELECT lines.pool_id FROM (SELECT DISTINCT pool_id FROM claims WHERE status = 'waiting') AS lines, LATERAL (
    SELECT FROM vms WHERE vms.pool_id = lines.pool_id AND vms.status = 'available'
    ORDER BY health DESC, status_changed_at, id LIMIT 1
) AS free"""


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """A claim, whether this very request made it, its place in line, and a link for whoever came without a cookie.

    All of it comes out of one transaction: either the person is told everything, or nothing was kept. ``seat_key`` is
    known now and never again.
    """

    claim: ClaimView
    created: bool
    position: int | None
    link: str | None
    seat_key: str | None = None


async def request_claim(
    db: Database,
    pool_name: str,
    email: str | None,
    *,
    owner_hash: bytes | None,
    idempotency_key: str | None = None,
    address: str | None = None,
    user_agent: str | None = None,
    proof: Proof = NO_PROOF,
) -> ClaimResult:
    """Claims a seat, or a place in line. The same browser (or idempotency key) asking again gets what it has.

    Raises:
        InvalidInput: not an e-mail.
        NotFound, Conflict: no such pool, or it is closed.
        Forbidden: what the pool asks for is missing or wrong.
        SeatExists: the e-mail holds a seat in this pool that whoever asks did not prove to be theirs.
        Throttled: too many wrong guesses from this address.
    """
    key, link = new_code(SEAT_KEY), new_token() if owner_hash is None else None
    asked = Asked(
        key_hash=hash_token(key),
        owner_hash=owner_hash,
        idempotency_hash=hash_token(idempotency_key) if idempotency_key else None,
        link_hash=hash_token(link) if link else None,
        link_expires_at=db.now() + timedelta(seconds=SEAT_LINK_S),
        address=address,
        user_agent=user_agent,
    )
    async with counting_guesses(db, address):
        claim, position, created = await _take_at_once(db, pool_name, email, asked) or await _take(
            db, pool_name, email, asked, proof
        )
    result = ClaimResult(claim, created, position, link, show_code(key) if created else None)
    return await _look_again(db, result) if created and position is not None else result


async def serve_waiting(db: Database, pool_id: int) -> int:
    """Lets in whoever waits for this pool, as far as VMs are free. Returns how many were let in."""
    async with db.transaction() as session:
        return await serve_line(session, pool_id, at=db.now())


async def list_pools_waiting(db: Database) -> list[int]:
    """The ids of pools in which somebody waits although there may be a machine for them."""
    async with db.transaction() as session:
        return list(await session.scalars(text(POOLS_WAITING)))


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
        return [view_of_claim(*row) for row in (await session.execute(query))]


async def get_position(db: Database, claim_id: int) -> int | None:
    """The place in line, from 1; None once it is not waiting."""
    async with db.transaction() as session:
        claim = await session.get(Claim, claim_id)
        return None if claim is None else await _find_position(session, claim)


async def release_own_claim(
    db: Database,
    claim_id: int,
    *,
    owner_hash: bytes | None = None,
    key_hash: bytes | None = None,
    address: str | None = None,
) -> None:
    """The researcher gives the seat (or the place in line) back. Ending what has ended changes nothing.

    Raises:
        NotFound: neither this browser nor this key holds such a claim.
    """
    holder = Holder(owner_hash, key_hash, address)
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
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
        record_opened(session, db, claim, "by its link", address=address)
        return await view_claim(session, claim, await session.get_one(Pool, claim.pool_id))


def record_opened(session: AsyncSession, db: Database, claim: Claim, how: str, *, address: str | None) -> None:
    """Writes down that a seat was opened in one more browser."""
    record_event(
        session,
        "claim.opened",
        f"The seat of {claim.email} was opened {how}",
        actor=Actor.researcher(claim.email, address),
        at=db.now(),
        pool_id=claim.pool_id,
        vm_id=claim.vm_id,
        claim_id=claim.id,
    )


_Taken = tuple[ClaimView, int | None, bool]


async def _take_at_once(db: Database, pool_name: str, email: str | None, asked: Asked) -> _Taken | None:
    """A fresh claim in a pool that asks for nothing but an e-mail, as most do. None: this needs a closer look."""
    try:
        admitted = Admitted(check_email(email or ""))
    except InvalidInput:
        return None
    at = db.now()
    entrance = Entrance(pool_name, Access.OPEN)
    place = await db.together(take_places, entrance, describe_ask(entrance, admitted, asked, at=at))
    return (_view_place(place, pool_name, admitted, at), place.position, True) if place else None


async def _take(db: Database, pool_name: str, email: str | None, asked: Asked, proof: Proof) -> _Taken:
    """The open claim that whoever asks holds already, or else a fresh one; or why there is neither."""
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        check_open(pool)
        mine = await _find_own(session, pool.id, email, asked)
        if mine is None:
            try:
                admitted = await admit(session, db, pool, email, proof)
            except Forbidden:
                # The last use of a code may have been this very browser's other click, a moment ago.
                mine = await _find_own(session, pool.id, email, asked)
                if mine is None:
                    raise
            else:
                at, connection = db.now(), await driver_connection(session)
                entrance = Entrance(pool_name, Access(pool.access))
                (place,) = await take_places(connection, entrance, [describe_ask(entrance, admitted, asked, at=at)])
                if place is not None:
                    if admitted.code_id is not None:
                        await count_use(session, admitted.code_id)
                    return _view_place(place, pool_name, admitted, at), place.position, True
                mine = await _find_own(session, pool.id, admitted.email, asked)
                mine = mine or await _open_for_person(session, db, pool, admitted, asked)
        if asked.link_hash is not None:
            session.add(SeatLink(claim_id=mine.id, token_hash=asked.link_hash, expires_at=asked.link_expires_at))
        return await view_claim(session, mine, pool), await _find_position(session, mine), False


def _view_place(place: Place, pool_name: str, admitted: Admitted, at: datetime) -> ClaimView:
    return ClaimView(
        id=place.claim_id,
        pool_id=place.pool_id,
        pool=pool_name,
        email=admitted.email,
        status=ClaimStatus.WAITING if place.vm_id is None else ClaimStatus.PREPARING,
        reason=None,
        vm_id=place.vm_id,
        hostname=place.hostname,
        created_at=at,
        status_changed_at=at,
        ended_at=None,
        ends_at=place.ends_at,
        last_active_at=None if place.vm_id is None else at,
    )


async def _look_again(db: Database, result: ClaimResult) -> ClaimResult:
    """A VM may have come free while the claim was not yet visible to its giver. Whatever comes of this, it stands."""
    try:
        async with db.transaction() as session:
            await serve_line(session, result.claim.pool_id, at=db.now())
            claim = await session.get_one(Claim, result.claim.id)
            view = await view_claim(session, claim, await session.get_one(Pool, claim.pool_id))
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


async def _find_own(session: AsyncSession, pool_id: int, email: str | None, asked: Asked) -> Claim | None:
    is_open = (Claim.pool_id == pool_id, Claim.status.in_(OPEN_CLAIM))
    if asked.owner_hash is not None:
        mine = await session.scalar(select(Claim).where(*is_open, is_open_in(asked.owner_hash)))
        if mine is not None:
            return mine
    if asked.idempotency_hash is not None and email is not None:
        mine = await session.scalar(select(Claim).where(*is_open, Claim.idempotency_hash == asked.idempotency_hash))
        if mine is not None and mine.email.lower() == email.strip().lower():
            return mine
    return None


async def _open_for_person(session: AsyncSession, db: Database, pool: Pool, admitted: Admitted, asked: Asked) -> Claim:
    """The seat of a proven person, opened in one more browser; of an e-mail that proves nothing, a refusal."""
    is_theirs = (Claim.pool_id == pool.id, Claim.status.in_(OPEN_CLAIM), Claim.person == admitted.person)
    found = await session.scalar(select(Claim.id).where(*is_theirs)) if admitted.person else None
    claim = await lock_claim(session, found) if found else None
    if claim is None or claim.status not in OPEN_CLAIM:
        raise SeatExists
    if asked.owner_hash is not None:
        await add_browser(session, db, claim, asked.owner_hash, address=asked.address, user_agent=asked.user_agent)
    how = "personal link" if admitted.person and admitted.person.startswith("roster:") else "sign-in"
    record_opened(session, db, claim, f"by their {how}", address=asked.address)
    return claim


async def view_claim(session: AsyncSession, claim: Claim, pool: Pool) -> ClaimView:
    """The picture of a row within its transaction."""
    vm = await session.get(Vm, claim.vm_id) if claim.vm_id is not None else None
    return view_of_claim(claim, pool.name, vm.hostname if vm else None)


def view_of_claim(claim: Claim, pool: str, hostname: str | None) -> ClaimView:
    """The picture of a row, with the names of its pool and VM."""
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
        stops_at=claim.stops_at,
        warned_again_at=claim.warned_again_at,
        last_active_at=claim.last_active_at,
        crd_status=CrdStatus(claim.crd_status) if claim.crd_status else None,
        crd_detail=claim.crd_detail,
        crd_link=claim.crd_link,
    )
