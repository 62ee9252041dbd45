"""Admins who sign in at their organisation: its groups say what they may do, anew at each sign-in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Forbidden
from backend.models import Pool, User
from backend.oidc import Vouched
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.people import change_role, end_sessions_of, end_what_was_made
from backend.services.sign_in import open_session
from backend.setting_keys import OidcSettings
from backend.states import Role

MAX_NAME = 80
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._@+-]+")


def find_role(groups: frozenset[str], settings: OidcSettings) -> Role | None:
    """The highest role that these groups give; None if they give none."""
    by_role = (
        (Role.ADMIN, settings.admin_groups),
        (Role.OPERATOR, settings.operator_groups),
        (Role.VIEWER, settings.viewer_groups),
    )
    return next((role for role, given in by_role if groups.intersection(given)), None)


async def sign_in_by_oidc(
    db: Database,
    vouched: Vouched,
    *,
    settings: OidcSettings,
    session_hours: int,
    address: str | None = None,
    user_agent: str | None = None,
) -> str:
    """Opens a session for whom the provider vouches, as a user of that role; returns the secret for its cookie.

    The user is made at the first sign-in and known by the provider's subject ever after, never by a name.

    Raises:
        Forbidden: none of the groups has a role (what is still open or was made ends), or the user was disabled.
    """
    role = find_role(vouched.groups, settings)
    async with db.transaction() as session:
        user = await _find(session, vouched)
        if role is not None:
            user = user or await _make(session, db, vouched, role, address)
            if user.disabled_at is None:
                return await _let_in(
                    session, db, user, role, hours=session_hours, address=address, user_agent=user_agent
                )
        why = "was disabled here" if role is not None else "is in none of the groups that may use this console"
        await _shut_out(session, db, vouched, user, why, address)
    raise Forbidden(f"Your account {why}. Ask an admin.", code="oidc_disabled" if role else "oidc_no_role")


async def list_oidc_groups(db: Database) -> frozenset[str]:
    """The groups that pools ask for."""
    async with db.transaction() as session:
        found = await session.scalars(select(Pool.oidc_group).where(Pool.oidc_group.is_not(None)).distinct())
        return frozenset(group for group in found if group)


async def _let_in(
    session: AsyncSession,
    db: Database,
    user: User,
    role: Role,
    *,
    hours: int,
    address: str | None,
    user_agent: str | None,
) -> str:
    if user.role != role:
        was = await change_role(session, user, role, at=db.now())
        message = f"{user.name} became {role} (was {was}): the organisation's groups say so"
        record_event(session, "user.role", message, actor=Actor.rule("oidc_groups"), at=db.now())
    return open_session(session, db, user, hours=hours, address=address, user_agent=user_agent, how=" by OIDC")


async def _shut_out(
    session: AsyncSession, db: Database, vouched: Vouched, user: User | None, why: str, address: str | None
) -> None:
    """The refusal is written down; what its owner had open and had made before the groups changed ends with it."""
    who = user.name if user else vouched.email or vouched.subject
    message = f"{who} was not let in by OIDC: the account {why}"
    record_event(session, "user.sign_in_failed", message, actor=Actor("anyone", address), at=db.now())
    if user is not None:
        await end_sessions_of(session, user.id, at=db.now())
        await end_what_was_made(session, [f"admin:{user.name}"], roles=list(Role), at=db.now())


async def _find(session: AsyncSession, vouched: Vouched) -> User | None:
    return await session.scalar(select(User).where(User.oidc_subject == _key_of(vouched)).with_for_update())


async def _make(session: AsyncSession, db: Database, vouched: Vouched, role: Role, address: str | None) -> User:
    for name in _names(vouched):
        row = insert(User).values(name=name, role=role, oidc_subject=_key_of(vouched), created_at=db.now())
        made = await session.scalar(row.on_conflict_do_nothing().returning(User.id))
        # Of two first sign-ins at once, one makes the user; else it was the name that somebody has already.
        user = await _find(session, vouched)
        if user is not None:
            if made is not None:
                message = f"{user.name} ({role}) was made at the first sign-in by OIDC"
                record_event(session, "user.created", message, actor=Actor.admin(user.name, address), at=db.now())
            return user
    raise AssertionError("there is always one more name")


def _names(vouched: Vouched) -> Iterator[str]:
    """Names to try: a provider's user named `admin` does not become ours."""
    wanted = [_NOT_IN_NAMES.sub("-", word).strip("-")[:MAX_NAME] for word in (vouched.name or "", vouched.email or "")]
    wanted = [word for word in wanted if word] or ["user"]
    yield from wanted
    yield from (f"{wanted[0][: MAX_NAME - 10]}-{number}" for number in count(2))


def _key_of(vouched: Vouched) -> str:
    """A subject is unique within its issuer only."""
    return f"{vouched.issuer} {vouched.subject}"
