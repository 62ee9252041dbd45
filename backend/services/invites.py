"""Invites: a link that makes an admin, or sets a forgotten password anew; once, and not for long."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound, Unauthenticated
from backend.models import Invite, User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.passwords import check_password, hash_password
from backend.services.people import get_user_row, set_password
from backend.services.tokens import hash_token, new_token
from backend.states import Role

INVITE_S, RESET_S = 3 * 24 * 3_600, 24 * 3_600
# No colon and no space: an actor is written as kind:name, in one word.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,78}[a-z0-9])?")
_SPENT = "This link was used already, was withdrawn or has expired. Ask for a new one."


@dataclass(frozen=True, slots=True)
class InviteView:
    """An invite that still works. ``is_reset``: it sets the password of a user who exists."""

    id: int
    name: str
    role: Role
    is_reset: bool
    created_by: str
    created_at: datetime
    expires_at: datetime


async def create_invite(db: Database, name: str, role: Role, *, actor: Actor) -> tuple[InviteView, str]:
    """An invite and the secret of its link, shown this once, valid for three days. It replaces an earlier one.

    Raises:
        Forbidden: only an admin may.
        InvalidInput: not a name.
        Conflict: there is a user of this name.
    """
    actor.must_administer()
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "A name has 1 to 80 lower-case letters, digits and . _ @ + - such as 'kim'.", code="bad_name"
        )
    async with db.transaction() as session:
        if await session.scalar(select(User.id).where(func.lower(User.name) == name)):
            raise Conflict(f"There is a user named '{name}' already.", code="user_exists")
        earlier = (Invite.name == name) & Invite.user_id.is_(None) & Invite.revoked_at.is_(None)
        await session.execute(update(Invite).where(earlier, Invite.used_at.is_(None)).values(revoked_at=db.now()))
        made = await _insert(session, db, name, role, None, INVITE_S, actor)
        record_event(session, "invite.created", f"{name} was invited as {role}", actor=actor, at=db.now())
        return made


async def create_reset(db: Database, name: str, *, actor: Actor) -> tuple[InviteView, str]:
    """A link that sets the password of a user anew, and its secret, shown this once, valid for a day.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
        Conflict: the user is disabled.
    """
    actor.must_administer()
    async with db.transaction() as session:
        user = await get_user_row(session, name, lock=True)
        if user.disabled_at is not None:
            raise Conflict(f"{name} is disabled. Enable the user first.", code="user_disabled")
        made = await _insert(session, db, name, Role(user.role), user.id, RESET_S, actor)
        message = f"A link for a new password of {name} was made"
        record_event(session, "invite.reset", message, actor=actor, at=db.now())
        return made


async def list_invites(db: Database) -> list[InviteView]:
    """The invites that still work, newest first."""
    async with db.transaction() as session:
        return [_view_of(row) for row in await session.scalars(_open(db).order_by(Invite.id.desc()))]


async def revoke_invite(db: Database, invite_id: int, *, actor: Actor) -> None:
    """Ends an invite; one that has ended already stays so.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such invite.
    """
    actor.must_administer()
    async with db.transaction() as session:
        invite = await session.get(Invite, invite_id, with_for_update=True)
        if invite is None:
            raise NotFound("There is no such invite.")
        if invite.revoked_at is None and invite.used_at is None:
            invite.revoked_at = db.now()
            message = f"The invite of {invite.name} was withdrawn"
            record_event(session, "invite.revoked", message, actor=actor, at=db.now())


async def find_invite(db: Database, token: str) -> InviteView | None:
    """What this link is for, while it works."""
    async with db.transaction() as session:
        invite = await session.scalar(_open(db).where(Invite.token_hash == hash_token(token)))
        return _view_of(invite) if invite else None


async def accept_invite(db: Database, token: str, password: str, *, address: str | None = None) -> str:
    """Makes the user, or sets the password anew, and spends the link. Returns the user's name.

    Raises:
        Unauthenticated: the link is unknown, spent or expired.
        InvalidInput: the password is not acceptable.
        Conflict: a user of this name was made meanwhile.
    """
    found = await find_invite(db, token)
    if found is None:
        raise Unauthenticated(_SPENT, code="link_spent")
    check_password(found.name, password)
    hashed = await hash_password(password)
    async with db.transaction() as session:
        invite = await session.scalar(_open(db).where(Invite.id == found.id).with_for_update())
        if invite is None:
            raise Unauthenticated(_SPENT, code="link_spent")
        invite.used_at = db.now()
        actor = Actor.admin(invite.name, address, Role(invite.role))
        if invite.user_id is None:
            await _insert_user(session, db, invite, hashed)
            message = f"{invite.name} accepted the invite of {invite.created_by}, as {invite.role}"
            record_event(session, "user.created", message, actor=actor, at=db.now())
        else:
            user = await session.get_one(User, invite.user_id, with_for_update=True)
            await set_password(session, user, hashed, at=db.now())
            message = f"{invite.name} set a new password by the link of {invite.created_by}"
            record_event(session, "user.password", message, actor=actor, at=db.now())
        return invite.name


async def _insert_user(session: AsyncSession, db: Database, invite: Invite, hashed: str) -> None:
    if await session.scalar(select(User.id).where(func.lower(User.name) == invite.name)):
        raise Conflict(f"There is a user named '{invite.name}' already.", code="user_exists")
    session.add(User(name=invite.name, password_hash=hashed, role=invite.role, created_at=db.now()))


async def _insert(
    session: AsyncSession, db: Database, name: str, role: Role, user_id: int | None, lives_s: int, actor: Actor
) -> tuple[InviteView, str]:
    token, at = new_token(), db.now()
    invite = Invite(
        name=name,
        role=role,
        user_id=user_id,
        token_hash=hash_token(token),
        created_by=actor.name,
        created_at=at,
        expires_at=at + timedelta(seconds=lives_s),
    )
    session.add(invite)
    await session.flush()
    return _view_of(invite), token


def _open(db: Database) -> Select[Invite]:
    return select(Invite).where(Invite.used_at.is_(None), Invite.revoked_at.is_(None), Invite.expires_at > db.now())


def _view_of(invite: Invite) -> InviteView:
    return InviteView(
        id=invite.id,
        name=invite.name,
        role=Role(invite.role),
        is_reset=invite.user_id is not None,
        created_by=invite.created_by,
        created_at=invite.created_at,
        expires_at=invite.expires_at,
    )
