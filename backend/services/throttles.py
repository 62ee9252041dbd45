"""Throttles: guessing is stopped and told when to return. Only failures are counted, never what was right.

A failure counts for a few keys: what was guessed *from where* (`password of kim from 192.0.2.7`), and where from alone,
with twice as many tries. Never for what was guessed alone: else anybody could lock the admin out, in the middle of a
workshop, from anywhere.

Long secrets (tokens and links of 256 random bits) are looked up first, and only a wrong one is counted or refused:
hundreds of machines or people behind one address are in nobody's way. Short ones (passwords, codes, keys) are checked
for refusal *before* they are looked at, since there the next guess may be right; `turn` makes guesses of one kind from
one place wait for each other, so that a hundred at once are not a hundred tries.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv6Address, ip_address
from weakref import WeakValueDictionary

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Revoked, Throttled, Unauthenticated
from backend.models import LoginFailure
from backend.services.actor import Actor
from backend.services.moves import record_event

# First key of the two-key advisory lock that counts the failures of one key one by one.
FAILURES_LOCK = 7_426_003
_IPV6_SITE_BITS = 64


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many failures of one key are allowed within ``window_s`` seconds."""

    attempts: int = 10
    window_s: int = 300
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, compare=False)

    @asynccontextmanager
    async def turn(self, keys: Sequence[Key]) -> AsyncIterator[None]:
        """One guess at a time for the last of these keys (the widest), in this process."""
        lock = self._turns.setdefault(keys[-1].name, asyncio.Lock())
        async with lock:
            yield


@dataclass(frozen=True, slots=True)
class Key:
    """What failures are counted for. ``factor``: how many times the throttle's attempts it allows."""

    name: str
    factor: int = 1


def keys_of(kind: str, address: str | None, *, of: str | None = None) -> tuple[Key, ...]:
    """The keys of a guess of this kind from this address; ``of``: whose secret is guessed (a user, a pool, a seat)."""
    place = _place_of(address)
    if of is None:
        return (Key(f"{kind}:{place}"),)
    return (Key(f"{kind}:{place}:{of.casefold()[:255]}"), Key(f"{kind}:{place}", factor=2))


async def check(session: AsyncSession, db: Database, keys: Sequence[Key], throttle: Throttle) -> None:
    """Lets a guess be made, or says when to return.

    Raises:
        Throttled: too many failures of one of these keys; ``retry_after_s`` says when there will be fewer.
    """
    since = db.now() - timedelta(seconds=throttle.window_s)
    for key in keys:
        allowed = throttle.attempts * key.factor
        # The latest ones only: when the oldest of them is past the window, the next try is allowed.
        latest = (
            select(LoginFailure.at)
            .where(LoginFailure.key == key.name, LoginFailure.at > since)
            .order_by(LoginFailure.at.desc())
            .limit(allowed)
            .subquery()
        )
        failures, oldest = (await session.execute(select(func.count(), func.min(latest.c.at)))).one()
        if failures >= allowed:
            wait_s = max(1, int((oldest - since).total_seconds()) + 1)
            raise Throttled(f"Too many failed attempts. Try again in {wait_s} s.", retry_after_s=wait_s)


async def record_failure(
    session: AsyncSession, db: Database, keys: Sequence[Key], throttle: Throttle, *, address: str | None = None
) -> None:
    """Counts a wrong guess within the session's transaction; the one that fills a key writes an event.

    Raises:
        Throttled: there were too many before; nothing is counted.
    """
    for key in keys:
        await session.execute(
            text("SELECT pg_advisory_xact_lock(:space, hashtext(:key))"), {"space": FAILURES_LOCK, "key": key.name}
        )
    await check(session, db, keys, throttle)
    session.add_all(LoginFailure(key=key.name, at=db.now()) for key in keys)
    await session.flush()
    try:
        await check(session, db, keys, throttle)
    except Throttled as full:
        kind = keys[0].name.partition(":")[0]
        message = f"Too many wrong guesses ({kind}); refused for {full.retry_after_s} s"
        record_event(session, "guessing.stopped", message, actor=Actor("anyone", address), at=db.now())


@asynccontextmanager
async def counting_failures(db: Database, kind: str, *, throttle: Throttle, address: str | None) -> AsyncIterator[None]:
    """Around the look-up of a long secret: what it refuses as unknown is counted as a wrong guess.

    Raises:
        Unauthenticated: as the block said.
        Throttled: instead, after too many.
    """
    try:
        yield
    except Revoked:
        raise
    except Unauthenticated:
        async with db.transaction() as session:
            await record_failure(session, db, keys_of(kind, address), throttle, address=address)
        raise


def _place_of(address: str | None) -> str:
    """The address; of IPv6 the network of one site, whose owner has 2⁶⁴ addresses to guess from."""
    try:
        found = ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or "unknown"
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) >> _IPV6_SITE_BITS << _IPV6_SITE_BITS)) + "/64"
    return str(found)
