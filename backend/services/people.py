"""People: the admins, their roles, and their passwords. Users are never deleted: history speaks of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.models import AdminSession, ApiToken, Invite, User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.passwords import check_password, hash_password, is_right_password
from backend.services.throttles import Key, Throttle, check, record_failure
from backend.states import Role


@dataclass(frozen=True, slots=True)
class UserView:
    """An admin as people see one. ``sessions`` counts the browsers that are signed in now."""

    id: int
    name: str
    role: Role
    created_at: datetime
    disabled_at: datetime | None
    has_password: bool
    has_second_step: bool
    sessions: int
    last_seen_at: datetime | None


async def list_users(db: Database) -> list[UserView]:
    """All users by name, the disabled ones too."""
    is_open = AdminSession.revoked_at.is_(None) & (AdminSession.expires_at > db.now())
    seen = func.max(func.coalesce(AdminSession.last_seen_at, AdminSession.created_at))
    query = (
        select(User, func.count(AdminSession.id).filter(is_open), seen)
        .outerjoin(AdminSession, AdminSession.user_id == User.id)
        .group_by(User.id)
        .order_by(User.name)
    )
    async with db.transaction() as session:
        return [_view_of(*row) for row in await session.execute(query)]


async def get_user(db: Database, name: str) -> UserView:
    """One user.

    Raises:
        NotFound: no such user.
    """
    for user in await list_users(db):
        if user.name == name:
            return user
    raise _unknown(name)


async def set_role(db: Database, name: str, role: Role, *, actor: Actor) -> None:
    """Changes what somebody may do, at once. With a lesser role, what they made with a higher one stops working.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
        Conflict: this is the last admin.
    """
    actor.must_administer()
    async with db.transaction() as session:
        admins = await _lock_admins(session)
        user = await get_user_row(session, name, lock=True)
        if user.role == role:
            return
        _must_not_be_last(user, admins)
        was = await change_role(session, user, role, at=db.now())
        message = f"{name} became {role} (was {was})"
        record_event(session, "user.role", message, actor=actor, at=db.now())


async def disable_user(db: Database, name: str, *, actor: Actor) -> None:
    """Ends somebody's right to sign in: their sessions end now, and so do the invites and API tokens they made.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
        Conflict: this is the last admin.
    """
    actor.must_administer()
    async with db.transaction() as session:
        admins = await _lock_admins(session)
        user = await get_user_row(session, name, lock=True)
        if user.disabled_at is not None:
            return
        _must_not_be_last(user, admins)
        user.disabled_at = db.now()
        await end_sessions_of(session, user.id, at=db.now())
        await end_what_was_made(session, [f"admin:{name}"], roles=list(Role), at=db.now())
        await _end_resets(session, user.id, at=db.now())
        record_event(session, "user.disabled", f"{name} was disabled", actor=actor, at=db.now())


async def enable_user(db: Database, name: str, *, actor: Actor) -> None:
    """Lets somebody sign in again, with the password and the role of before.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
    """
    actor.must_administer()
    async with db.transaction() as session:
        user = await get_user_row(session, name, lock=True)
        if user.disabled_at is not None:
            user.disabled_at = None
            record_event(session, "user.enabled", f"{name} was enabled", actor=actor, at=db.now())


async def change_password(
    db: Database, user_id: int, old: str, new: str, *, kept_session_id: int | None, throttle: Throttle, actor: Actor
) -> None:
    """Changes one's own password; all other sessions of the user end.

    Raises:
        InvalidInput: the old one is wrong, or the new one is not acceptable.
        Throttled: too many wrong old ones.
    """
    name = await check_own_password(db, user_id, old, throttle=throttle, actor=actor)
    check_password(name, new)
    if new == old:
        raise InvalidInput("The new password is the old one.", code="weak_password")
    hashed = await hash_password(new)
    async with db.transaction() as session:
        user = await session.get_one(User, user_id, with_for_update=True)
        await set_password(session, user, hashed, at=db.now(), kept_session_id=kept_session_id)
        record_event(session, "user.password", f"{name} changed the password", actor=actor, at=db.now())


async def check_own_password(db: Database, user_id: int, password: str, *, throttle: Throttle, actor: Actor) -> str:
    """Makes sure that whoever acts knows the password, for what an open page alone must not allow. Returns the name.

    Raises:
        InvalidInput: the password is wrong.
        Conflict: the user has none: another service signs them in.
        Throttled: too many wrong ones.
    """
    key = (Key(f"password:{user_id}"),)
    async with db.transaction() as session:
        await check(session, db, key, throttle)
        user = await session.get_one(User, user_id)
    if user.password_hash is None:
        raise Conflict("You have no password here: you sign in with your organisation.", code="no_password")
    if not await is_right_password(user.password_hash, password):
        async with db.transaction() as session:
            await record_failure(session, db, key, throttle, address=actor.address)
            message = f"A wrong password of {user.name} was given"
            record_event(session, "user.wrong_password", message, actor=actor, at=db.now())
        raise InvalidInput("Your present password is wrong.", code="wrong_password")
    return user.name


async def set_password(
    session: AsyncSession, user: User, hashed: str, *, at: datetime, kept_session_id: int | None = None
) -> None:
    """Sets a password within a transaction that holds the user locked; ends sessions and links that are now stale."""
    user.password_hash = hashed
    await end_sessions_of(session, user.id, at=at, but=kept_session_id)
    await _end_resets(session, user.id, at=at)


async def end_sessions_of(session: AsyncSession, user_id: int, *, at: datetime, but: int | None = None) -> int:
    """Ends all sessions of a user (``but`` one) within a transaction. Returns how many there were."""
    ended = (
        update(AdminSession)
        .where(AdminSession.user_id == user_id, AdminSession.revoked_at.is_(None), AdminSession.expires_at > at)
        .values(revoked_at=at)
        .returning(AdminSession.id)
    )
    if but is not None:
        ended = ended.where(AdminSession.id != but)
    return len((await session.scalars(ended)).all())


async def change_role(session: AsyncSession, user: User, role: Role, *, at: datetime) -> str:
    """Changes a role within a transaction that holds the user locked; what was made with a higher one ends.

    Returns the former role.
    """
    was, user.role = user.role, role
    higher = [each for each in Role if each.rank > role.rank]
    await end_what_was_made(session, [f"admin:{user.name}"], roles=higher, at=at)
    return was


async def end_what_was_made(
    session: AsyncSession, makers: Collection[str], *, roles: Collection[Role], at: datetime
) -> None:
    """Ends the open invites and API tokens of these roles that ``makers`` made, and what those tokens made in turn.

    A secret that somebody made for themselves before they were shut out must not let them in again.
    """
    while makers:
        for table in (Invite, ApiToken):
            made = table.created_by.in_(makers) & table.role.in_(roles) & table.revoked_at.is_(None)
            ended = await session.scalars(update(table).where(made).values(revoked_at=at).returning(table.name))
        # Of the tokens, that is: an invite makes nothing.
        makers = [f"admin:token:{name}" for name in ended]


async def get_user_row(session: AsyncSession, name: str, *, lock: bool = False) -> User:
    """The row, for services only.

    Raises:
        NotFound: no such user.
    """
    query = select(User).where(User.name == name)
    user = await session.scalar(query.with_for_update() if lock else query)
    if user is None:
        raise _unknown(name)
    return user


async def _lock_admins(session: AsyncSession) -> set[int]:
    # All of them, first and in one order: of two admins who demote each other at once, one stays.
    admins = select(User.id).where(User.role == Role.ADMIN, User.disabled_at.is_(None)).order_by(User.id)
    return set(await session.scalars(admins.with_for_update()))


def _must_not_be_last(user: User, admins: set[int]) -> None:
    if admins == {user.id}:
        raise Conflict(f"{user.name} is the last admin. Make somebody else an admin first.", code="last_admin")


async def _end_resets(session: AsyncSession, user_id: int, *, at: datetime) -> None:
    stale = (Invite.user_id == user_id) & Invite.used_at.is_(None) & Invite.revoked_at.is_(None)
    await session.execute(update(Invite).where(stale).values(revoked_at=at))


def _unknown(name: str) -> NotFound:
    return NotFound(f"There is no user named '{name[:80]}'.", code="unknown_user")


def _view_of(user: User, sessions: int, seen_at: datetime | None) -> UserView:
    return UserView(
        id=user.id,
        name=user.name,
        role=Role(user.role),
        created_at=user.created_at,
        disabled_at=user.disabled_at,
        has_password=user.password_hash is not None,
        has_second_step=user.totp_confirmed_at is not None,
        sessions=sessions,
        last_seen_at=seen_at,
    )
