"""Admin sessions: the browsers in which admins are signed in, and the end of one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select

from backend.db.engine import Database
from backend.errors import NotFound
from backend.models import AdminSession, User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.people import end_sessions_of, get_user_row
from backend.states import Role


@dataclass(frozen=True, slots=True)
class AdminSessionView:
    """One signed-in browser. ``last_seen_at`` is true to a minute."""

    id: int
    user_id: int
    user: str
    created_at: datetime
    expires_at: datetime
    last_seen_at: datetime | None
    address: str | None
    user_agent: str


async def list_admin_sessions(db: Database, user_id: int | None = None) -> list[AdminSessionView]:
    """The sessions that are open now, of one user or of all, newest first."""
    query = _open(db)
    if user_id is not None:
        query = query.where(AdminSession.user_id == user_id)
    async with db.transaction() as session:
        return [_view_of(*row) for row in await session.execute(query.order_by(AdminSession.id.desc()))]


async def find_roles(db: Database, session_ids: Collection[int]) -> dict[int, Role]:
    """The present role of those of these sessions that are still open."""
    query = _open(db).where(AdminSession.id.in_(session_ids), User.disabled_at.is_(None))
    async with db.transaction() as session:
        return {row.id: Role(user.role) for row, user in await session.execute(query)}


async def end_admin_session(db: Database, session_id: int, *, actor: Actor, owner_id: int | None = None) -> None:
    """Ends a session at once: one of ``owner_id``'s own, or with None anybody's. One that has ended stays so.

    Raises:
        Forbidden: only an admin may end somebody else's.
        NotFound: no such session (of this owner).
    """
    if owner_id is None:
        actor.must_administer()
    async with db.transaction() as session:
        row = await session.get(AdminSession, session_id, with_for_update=True)
        if row is None or owner_id not in {None, row.user_id}:
            raise NotFound("There is no such session.")
        if row.revoked_at is None:
            row.revoked_at = db.now()
            user = await session.get_one(User, row.user_id)
            message = f"A session of {user.name} was ended" + (f" (from {row.address})" if row.address else "")
            record_event(session, "user.session_ended", message, actor=actor, at=db.now())


async def end_admin_sessions(db: Database, name: str, *, actor: Actor) -> int:
    """Ends all sessions of a user at once. Returns how many there were.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
    """
    actor.must_administer()
    async with db.transaction() as session:
        user = await get_user_row(session, name, lock=True)
        number = await end_sessions_of(session, user.id, at=db.now())
        if number:
            message = f"All sessions of {name} were ended ({number})"
            record_event(session, "user.session_ended", message, actor=actor, at=db.now())
        return number


def _open(db: Database) -> Select[AdminSession, User]:
    is_open = AdminSession.revoked_at.is_(None) & (AdminSession.expires_at > db.now())
    return (
        select(AdminSession, User).select_from(AdminSession).join(User, User.id == AdminSession.user_id).where(is_open)
    )


def _view_of(row: AdminSession, user: User) -> AdminSessionView:
    return AdminSessionView(
        id=row.id,
        user_id=row.user_id,
        user=user.name,
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_seen_at=row.last_seen_at,
        address=row.address,
        user_agent=row.user_agent or "",
    )
