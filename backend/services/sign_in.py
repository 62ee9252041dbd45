"""Sign-in: who may use the console, in which browsers, with which tokens. Only failures are counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import InvalidInput, Unauthenticated
from backend.keys import KeyRing
from backend.models import AdminSession, ApiToken, User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.passwords import hash_password, is_right_password
from backend.services.second_step import WRONG_CODE, guess_key, use_code
from backend.services.throttles import Key, Throttle, check, counting_failures, keys_of, record_failure
from backend.services.tokens import hash_token, new_token
from backend.settings import MIN_API_TOKEN
from backend.states import Role

FIRST_ADMIN = "admin"
ENVIRONMENT_TOKEN = "environment"  # noqa: S105 - the name of a token, not one
# How long the second step may take, and how true "last seen" and "last used" are.
TICKET_S, SEEN_S = 300, 60
_PURPOSE = "second step"
_REFUSED = "The user name or the password is wrong."


@dataclass(frozen=True, slots=True)
class AdminIdentity:
    """Who acts. ``session_id`` and ``user_id`` are None for an API token."""

    name: str
    role: Role
    session_id: int | None
    user_id: int | None = None

    def actor(self, address: str | None = None) -> Actor:
        """The name beside this identity's events, with the role that services ask for."""
        return Actor.admin(self.name, address, self.role)


@dataclass(frozen=True, slots=True)
class SecondStep:
    """The password was right; now a code is due. ``ticket`` proves the first step, for five minutes."""

    ticket: str


async def ensure_first_admin(db: Database, password: str | None) -> str | None:
    """Makes the user ``admin`` if there is no user yet. Returns the password if it had to be generated."""
    async with db.transaction() as session:
        if await session.scalar(select(func.count()).select_from(User)):
            return None
    chosen = password or new_token()[:20]
    hashed = await hash_password(chosen)
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
        if await session.scalar(row.on_conflict_do_nothing().returning(ApiToken.id)):
            message = f"The API token {ENVIRONMENT_TOKEN} was made, as {Role.ADMIN}"
            record_event(session, "token.created", message, actor=Actor.rule("first_start"), at=db.now())


async def sign_in(
    db: Database,
    name: str,
    password: str,
    *,
    keys: KeyRing,
    throttle: Throttle,
    session_hours: int,
    address: str | None = None,
    user_agent: str | None = None,
) -> str | SecondStep:
    """Opens a session and returns the secret for its cookie; or asks for the second step of users who have one.

    Raises:
        Unauthenticated: wrong name or password; does not say which.
        Throttled: too many failures for this name or in all, from this address.
    """
    guessed = keys_of("password", address, of=name)
    async with throttle.turn(guessed):
        async with db.transaction() as session:
            await check(session, db, guessed, throttle)
            user = await session.scalar(select(User).where(User.name == name[:80], User.disabled_at.is_(None)))
        if not await is_right_password(user.password_hash if user else None, password) or user is None:
            await _record_failure(db, guessed, throttle, user.name if user else None, address)
            raise Unauthenticated(_REFUSED, code="wrong_password")
    if user.totp_confirmed_at is not None:
        return SecondStep(_make_ticket(user, keys, db.now()))
    async with db.transaction() as session:
        now = await session.get_one(User, user.id, with_for_update=True, populate_existing=True)
        if now.disabled_at is not None or now.password_hash != user.password_hash:
            raise Unauthenticated(_REFUSED, code="wrong_password")
        return open_session(session, db, now, hours=session_hours, address=address, user_agent=user_agent)


async def finish_sign_in(
    db: Database,
    ticket: str,
    code: str,
    *,
    keys: KeyRing,
    throttle: Throttle,
    session_hours: int,
    address: str | None = None,
    user_agent: str | None = None,
) -> str:
    """The second step: opens the session, and returns the secret for its cookie.

    Raises:
        Unauthenticated: the code is wrong or was used, or the first step is too long ago.
        Throttled: too many wrong codes for this user.
    """
    async with db.transaction() as session:
        user = await _find_by_ticket(session, ticket, keys, db.now())
        if user is None:
            raise Unauthenticated("That took too long. Sign in again.", code="step_expired")
        await check(session, db, guess_key(user.id), throttle)
        if user.totp_confirmed_at is None or use_code(user, code, keys=keys, at=db.now()):
            return open_session(session, db, user, hours=session_hours, address=address, user_agent=user_agent)
        await record_failure(session, db, guess_key(user.id), throttle, address=address)
        message = f"A code of {user.name} was wrong"
        record_event(session, "user.sign_in_failed", message, actor=Actor("anyone", address), at=db.now())
    raise Unauthenticated(WRONG_CODE, code="wrong_code")


def open_session(
    session: AsyncSession,
    db: Database,
    user: User,
    *,
    hours: int,
    address: str | None,
    user_agent: str | None,
    how: str = "",
) -> str:
    """Signs a user in within a transaction that has made sure of it. Returns the secret for the cookie."""
    secret, at = new_token(), db.now()
    session.add(
        AdminSession(
            user_id=user.id,
            token_hash=hash_token(secret),
            created_at=at,
            expires_at=at + timedelta(hours=hours),
            last_seen_at=at,
            address=address,
            user_agent=(user_agent or "")[:300],
        )
    )
    actor = Actor.admin(user.name, address, Role(user.role))
    record_event(session, "user.signed_in", f"{user.name} signed in{how}", actor=actor, at=at)
    return secret


async def sign_out(db: Database, secret: str, *, address: str | None = None) -> None:
    """Ends the session of this cookie, if it is one."""
    ended = (
        update(AdminSession)
        .where(AdminSession.token_hash == hash_token(secret), AdminSession.revoked_at.is_(None))
        .values(revoked_at=db.now())
        .returning(AdminSession.user_id)
    )
    async with db.transaction() as session:
        user_id = await session.scalar(ended)
        if user_id is not None:
            user = await session.get_one(User, user_id)
            actor = Actor.admin(user.name, address, Role(user.role))
            record_event(session, "user.signed_out", f"{user.name} signed out", actor=actor, at=db.now())


async def find_session(db: Database, secret: str) -> AdminIdentity | None:
    """Who this cookie signs in, if anybody, now."""
    query = (
        select(User, AdminSession)
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
        if row is None:
            return None
        user, found = row
        if _is_stale(found.last_seen_at, db.now()):
            found.last_seen_at = db.now()
        return AdminIdentity(user.name, Role(user.role), found.id, user.id)


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
    async with counting_failures(db, "api_token", throttle=throttle, address=address), db.transaction() as session:
        found = await session.scalar(query)
        if found is None:
            raise Unauthenticated("This API token is unknown, expired or revoked.")
        if _is_stale(found.last_used_at, db.now()):
            found.last_used_at = db.now()
        return AdminIdentity(f"token:{found.name}", Role(found.role), None)


async def _record_failure(
    db: Database, keys: Sequence[Key], throttle: Throttle, name: str | None, address: str | None
) -> None:
    async with db.transaction() as session:
        await record_failure(session, db, keys, throttle, address=address)
        # What was typed as a name is repeated only if it is one: people type passwords there.
        message = f"A sign-in as {name} failed" if name else "A sign-in as nobody we know failed"
        record_event(session, "user.sign_in_failed", message, actor=Actor("anyone", address), at=db.now())


def _is_stale(seen_at: datetime | None, now: datetime) -> bool:
    return seen_at is None or now - seen_at >= timedelta(seconds=SEEN_S)


def _make_ticket(user: User, keys: KeyRing, at: datetime) -> str:
    said = f"{user.id}.{int(at.timestamp()) + TICKET_S}"
    # Signed with the password's hash, so that a new password makes it worthless.
    return f"{said}.{keys.sign(_PURPOSE, f'{said}.{user.password_hash}')}"


async def _find_by_ticket(session: AsyncSession, ticket: str, keys: KeyRing, at: datetime) -> User | None:
    said, _, signature = ticket.rpartition(".")
    user_id, _, until = said.partition(".")
    if not (user_id.isdecimal() and until.isdecimal() and len(said) < 40) or at.timestamp() > int(until):
        return None
    user = await session.get(User, int(user_id), with_for_update=True)
    if user is None or user.disabled_at is not None:
        return None
    return user if keys.is_signed(_PURPOSE, f"{said}.{user.password_hash}", signature) else None
