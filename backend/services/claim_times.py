"""The time of a seat: it may end by itself, when its time is over or when nobody uses it, but never unwarned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict
from backend.models import Claim, LatestHeartbeat, Pool, SeatBrowser, Vm
from backend.services.actor import Actor
from backend.services.claims import view_claim, view_of_claim
from backend.services.holders import Holder, actor_of, lock_held
from backend.services.moves import record_event
from backend.services.pools import view_of
from backend.services.sessions import lock_claim, vacate
from backend.services.views import ClaimView, PoolView
from backend.states import HOLDING_CLAIM, ClaimStatus

WARNING_S = 900
WARNING_SHARE = 5
# Who was warned that long before is warned once more.
LAST_WARNING_S = 300
# How much longer a click keeps a seat whose class is over.
STAY_S = 3_600
# A use is written down at most this often.
TOUCH_S = 60
# A machine that works is in use, whoever sits before it: a training run needs no typing.
BUSY_CPU_PCT, BUSY_GPU_PCT, FRESH_S = 20.0, 5.0, 120


class EndKind(StrEnum):
    """Why a seat ends by itself."""

    TIME = "time"  # the pool's time for a seat is over
    IDLE = "idle"  # nobody used it for as long as the pool allows
    CLASS = "class"  # the class of the pool's schedule is over


_WHY = {EndKind.TIME: "its time is over", EndKind.IDLE: "nobody used it", EndKind.CLASS: "the class is over"}


@dataclass(frozen=True, slots=True)
class SeatEnd:
    """When a seat ends by itself if nothing is done, and from when on its holder is warned."""

    kind: EndKind
    at: datetime
    warns_at: datetime

    @property
    def warns_again_at(self) -> datetime:
        """When its holder is warned a second time; at its end if the first warning is no earlier than that."""
        again = self.at - timedelta(seconds=LAST_WARNING_S)
        return again if self.warns_at < again else self.at


def find_end(claim: ClaimView, pool: PoolView) -> SeatEnd | None:
    """The next end of a seat; None if it has none.

    Who could not be warned in time (the server was down) keeps the seat for the time of the warning.
    """
    if claim.status not in HOLDING_CLAIM:
        return None
    ends: list[tuple[datetime, EndKind, int | None]] = []
    if claim.stops_at is not None:
        ends.append((claim.stops_at, EndKind.CLASS, None))
    if claim.ends_at is not None:
        ends.append((claim.ends_at, EndKind.TIME, pool.claim_duration_s))
    if pool.idle_limit_s is not None:
        last = claim.last_active_at or claim.status_changed_at
        ends.append((last + timedelta(seconds=pool.idle_limit_s), EndKind.IDLE, pool.idle_limit_s))
    if not ends:
        return None
    at, kind, limit_s = min(ends, key=lambda end: end[0])
    ahead = timedelta(seconds=min(WARNING_S, (limit_s or WARNING_S * WARNING_SHARE) / WARNING_SHARE))
    return SeatEnd(kind, max(at, claim.warned_at + ahead) if claim.warned_at else at, at - ahead)


async def extend_claim(db: Database, claim_id: int, holder: Holder) -> ClaimView:
    """The researcher stays: another whole duration from now on, and counted as a use.

    Raises:
        NotFound: this holder holds no such seat.
        Conflict: it has no machine, or no end.
    """
    async with db.transaction() as session:
        claim = await lock_held(session, claim_id, holder)
        pool = await session.get_one(Pool, claim.pool_id)
        if claim.status not in HOLDING_CLAIM:
            raise Conflict("This seat holds no machine now.", code="no_machine")
        if claim.ends_at is None and claim.stops_at is None and pool.idle_limit_s is None:
            raise Conflict("This seat has no end: it stays yours until you give it back.", code="no_end")
        now = db.now()
        if claim.ends_at is not None and pool.claim_duration_s is not None:
            claim.ends_at = max(claim.ends_at, now + timedelta(seconds=pool.claim_duration_s))
        if claim.stops_at is not None:
            claim.stops_at = max(claim.stops_at, now + timedelta(seconds=STAY_S))
        claim.last_active_at, claim.warned_at, claim.warned_again_at = now, None, None
        until = min((at for at in (claim.ends_at, claim.stops_at) if at), default=None)
        message = f"{claim.email} stays" + (f", until {until:%H:%M} UTC" if until else "")
        _note(session, claim, "claim.extended", message, actor_of(claim, holder), now)
        return await view_claim(session, claim, pool)


async def touch_claim(db: Database, claim_id: int, *, owner_hash: bytes | None = None) -> None:
    """Notes that a seat is being used: something was typed, clicked or moved. Cheap, and written once a minute.

    With ``owner_hash`` only if the seat is still open in that browser: a page may outlive its sign-out.
    """
    now = db.now()
    limited = select(Pool.id).where(Pool.idle_limit_s.is_not(None))
    is_stale = Claim.last_active_at.is_(None) | (Claim.last_active_at < now - timedelta(seconds=TOUCH_S))
    query = (
        update(Claim)
        .where(Claim.id == claim_id, Claim.status.in_(HOLDING_CLAIM), Claim.pool_id.in_(limited))
        # Who was warned must see at once that it is over.
        .where(is_stale | Claim.warned_at.is_not(None))
        .values(last_active_at=now)
        .execution_options(synchronize_session=False)
    )
    if owner_hash is not None:
        held = (SeatBrowser.claim_id == claim_id, SeatBrowser.owner_hash == owner_hash, SeatBrowser.ended_at.is_(None))
        query = query.where(exists().where(*held))
    async with db.transaction() as session:
        await session.execute(query)


async def keep_times(db: Database) -> int:
    """Warns whose seat ends soon, ends what is over, and counts machines at work as used. Returns how many it ended."""
    query = (
        select(Claim, Pool, Vm.hostname, LatestHeartbeat)
        .select_from(Claim)
        .join(Pool, Pool.id == Claim.pool_id)
        .join(Vm, Vm.id == Claim.vm_id)
        .outerjoin(LatestHeartbeat, LatestHeartbeat.vm_id == Vm.id)
        .where(
            Claim.status.in_(HOLDING_CLAIM),
            Claim.ends_at.is_not(None) | Claim.stops_at.is_not(None) | Pool.idle_limit_s.is_not(None),
        )
    )
    async with db.transaction() as session:
        rows = (await session.execute(query)).all()
    ended = 0
    for claim, pool, hostname, beat in rows:
        seen, now = view_of_claim(claim, pool.name, hostname), db.now()
        if pool.idle_limit_s is not None and _is_busy(beat, now):
            if seen.warned_at is not None or now - (seen.last_active_at or now) > timedelta(seconds=TOUCH_S):
                await touch_claim(db, claim.id)
            seen = replace(seen, last_active_at=now)
        if _is_due(seen, view_of(pool), now):
            ended += await _keep_time(db, claim.id)
    return ended


async def _keep_time(db: Database, claim_id: int) -> bool:
    async with db.transaction() as session:
        claim = await lock_claim(session, claim_id)
        if claim is None:
            return False
        pool = view_of(await session.get_one(Pool, claim.pool_id))
        now, end = db.now(), find_end(view_of_claim(claim, pool.name, None), pool)
        # It may have been extended or given back meanwhile.
        if end is None or now < end.warns_at:
            claim.warned_at = claim.warned_again_at = None
        elif claim.warned_at is None:
            claim.warned_at = now
            message = f"{claim.email} was told that the seat ends soon: {_WHY[end.kind]}"
            _note(session, claim, "claim.warned", message, Actor.rule(f"seat_{end.kind}"), now)
        elif claim.warned_again_at is None and end.warns_again_at <= now < end.at:
            claim.warned_again_at = now
            message = f"{claim.email} was told again that the seat ends in minutes: {_WHY[end.kind]}"
            _note(session, claim, "claim.warned", message, Actor.rule(f"seat_{end.kind}"), now)
        elif now >= end.at:
            actor = Actor.rule(f"seat_{end.kind}")
            await vacate(session, claim, ClaimStatus.EXPIRED, actor=actor, at=now, reason=_WHY[end.kind])
            return True
    return False


def _is_due(claim: ClaimView, pool: PoolView, now: datetime) -> bool:
    end = find_end(claim, pool)
    if end is None:
        return False
    is_warned = claim.warned_at is not None
    is_warned_again = claim.warned_again_at is not None
    return (
        now >= end.at
        or is_warned != (now >= end.warns_at)
        or (is_warned and not is_warned_again and now >= end.warns_again_at)
    )


def _is_busy(beat: LatestHeartbeat | None, now: datetime) -> bool:
    if beat is None or now - beat.at > timedelta(seconds=FRESH_S):
        return False
    gpus: Sequence[dict[str, Any]] = beat.gpus
    return beat.cpu_pct >= BUSY_CPU_PCT or any((gpu.get("utilisation_pct") or 0) >= BUSY_GPU_PCT for gpu in gpus)


def _note(session: AsyncSession, claim: Claim, kind: str, message: str, actor: Actor, at: datetime) -> None:
    record_event(
        session, kind, message, actor=actor, at=at, pool_id=claim.pool_id, vm_id=claim.vm_id, claim_id=claim.id
    )
