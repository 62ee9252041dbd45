"""Sign-in: who may use the console, in which browsers, with which tokens. Only failures are counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import InvalidInput, Unauthenticated
from backend.models import AdminSession, ApiToken, User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.throttles import Key, Throttle, check, counting_failures, keys_of, record_failure
from backend.services.tokens import hash_token, new_token
from backend.states import Role

FIRST_ADMIN = "admin"
ENVIRONMENT_TOKEN = "environment"  # noqa: S105 - the name of a token, not one
MIN_API_TOKEN = 24
# Argon2id with the library's defaults, which follow RFC 9106 (low-memory profile); verified off the event loop.
_hasher = PasswordHasher()
# Verified against when there is no such user, so that the time tells nothing.
_decoy = _hasher.hash(new_token())
_REFUSED = "The user name or the password is wrong."


@dataclass(frozen=True, slots=True)
class AdminIdentity:
    """Who acts. ``session_id`` is None for an API token."""

    name: str
    role: Role
    session_id: int | None

    def actor(self, address: str | None = None) -> Actor:
        """The name beside this identity's events."""
        return Actor.admin(self.name, address)


async def ensure_first_admin(db: Database, password: str | None) -> str | None:
    """Makes the user ``admin`` if there is no user yet. Returns the password if it had to be generated."""
    async with db.transaction() as session:
        if await session.scalar(select(func.count()).select_from(User)):
            return None
    chosen = password or new_token()[:20]
    hashed = await asyncio.to_thread(_hasher.hash, chosen)
    async with db.transaction() as session:
        row = insert(User).values(name=FIRST_ADMIN, password_hash=hashed, role=Role.ADMIN, created_at=db.now())
        made = await session.scalar(row.on_conflict_do_nothing().returning(User.id))
        if made is None:
            return None
        record_event(session, "user.created", "The first admin was made", actor=Actor.rule("first_start"), at=db.now())
    return None if password else chosen


async def ensure_api_token(db: Database, token: str) -> None:
    """Makes this secret a valid API token of an admin, if no token of the environment was stored before.

    Raises:
        InvalidInput: it has fewer than 24 characters.
    """
    if len(token) < MIN_API_TOKEN:
        raise InvalidInput(f"LABLINK_API_TOKEN must have {MIN_API_TOKEN} characters or more.")
    async with db.transaction() as session:
        row = insert(ApiToken).values(
            name=ENVIRONMENT_TOKEN, token_hash=hash_token(token), role=Role.ADMIN, created_at=db.now()
        )
        await session.execute(row.on_conflict_do_nothing())


async def sign_in(
    db: Database,
    name: str,
    password: str,
    *,
    throttle: Throttle,
    session_hours: int,
    address: str | None = None,
    user_agent: str | None = None,
) -> str:
    """Opens a session; returns the secret for its cookie.

    Raises:
        Unauthenticated: wrong name or password; does not say which.
        Throttled: too many failures for this name or in all, from this address.
    """
    keys = keys_of("password", address, of=name)
    async with throttle.turn(keys):
        async with db.transaction() as session:
            await check(session, db, keys, throttle)
            user = await session.scalar(select(User).where(User.name == name[:80], User.disabled_at.is_(None)))
        if not await asyncio.to_thread(_is_right, (user and user.password_hash) or _decoy, password) or user is None:
            await _record_failure(db, keys, throttle, user.name if user else None, address)
            raise Unauthenticated(_REFUSED, code="wrong_password")
    async with db.transaction() as session:
        secret = open_session(session, db, user, hours=session_hours, address=address, user_agent=user_agent)
        record_event(session, "user.signed_in", f"{name} signed in", actor=Actor.admin(name, address), at=db.now())
    return secret


def open_session(
    session: AsyncSession, db: Database, user: User, *, hours: int, address: str | None, user_agent: str | None
) -> str:
    """Opens a session for a user whose identity is proven, as a step of a transaction; returns its cookie's secret."""
    secret, at = new_token(), db.now()
    session.add(
        AdminSession(
            user_id=user.id,
            token_hash=hash_token(secret),
            created_at=at,
            expires_at=at + timedelta(hours=hours),
            address=address,
            user_agent=(user_agent or "")[:300],
        )
    )
    return secret


async def sign_out(db: Database, secret: str) -> None:
    """Ends the session of this cookie, if it is one."""
    async with db.transaction() as session:
        await session.execute(
            update(AdminSession)
            .where(AdminSession.token_hash == hash_token(secret), AdminSession.revoked_at.is_(None))
            .values(revoked_at=db.now())
        )


async def find_session(db: Database, secret: str) -> AdminIdentity | None:
    """Who this cookie signs in, if anybody, now."""
    query = (
        select(User.name, User.role, AdminSession.id)
        .join(AdminSession, AdminSession.user_id == User.id)
        .where(
            AdminSession.token_hash == hash_token(secret),
            AdminSession.revoked_at.is_(None),
            AdminSession.expires_at > db.now(),
            User.disabled_at.is_(None),
        )
    )
    async with db.transaction() as session:
        row = (await session.execute(query)).first()
    return AdminIdentity(row[0], Role(row[1]), row[2]) if row else None


async def authenticate_api_token(db: Database, token: str, *, throttle: Throttle, address: str | None) -> AdminIdentity:
    """Who this API token acts for.

    Raises:
        Unauthenticated: unknown, expired or revoked.
        Throttled: too many unknown tokens from this address.
    """
    query = select(ApiToken).where(
        ApiToken.token_hash == hash_token(token),
        ApiToken.revoked_at.is_(None),
        ApiToken.expires_at.is_(None) | (ApiToken.expires_at > db.now()),
    )
    async with counting_failures(db, "api_token", throttle=throttle, address=address):
        async with db.transaction() as session:
            found = await session.scalar(query)
        if found is None:
            raise Unauthenticated("This API token is unknown, expired or revoked.")
    return AdminIdentity(f"token:{found.name}", Role(found.role), None)


async def _record_failure(
    db: Database, keys: Sequence[Key], throttle: Throttle, name: str | None, address: str | None
) -> None:
    async with db.transaction() as session:
        await record_failure(session, db, keys, throttle, address=address)
        # An unknown name is not written down: often it is a password typed into the wrong field.
        message = f"A sign-in as {name!r} failed" if name else "A sign-in under an unknown name failed"
        record_event(session, "user.sign_in_failed", message, actor=Actor("anyone", address), at=db.now())


def _is_right(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerifyMismatchError, InvalidHashError):
        return False
