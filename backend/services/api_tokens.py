"""API tokens: they act for scripts, with a name, a role and an end. No name is used twice: history speaks of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.models import ApiToken
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.people import end_what_was_made
from backend.services.tokens import hash_token, new_token
from backend.states import Role

MAX_DAYS = 3_650
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,78}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class ApiTokenView:
    """A token as people see it; never its secret. ``last_used_at`` is true to a minute."""

    id: int
    name: str
    role: Role
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


async def create_api_token(
    db: Database, name: str, role: Role, *, days: int | None = None, actor: Actor
) -> tuple[ApiTokenView, str]:
    """A token that ends after ``days`` (None: never), and its secret, shown this once.

    Raises:
        Forbidden: only an admin may.
        InvalidInput: not a name, or not a number of days.
        Conflict: there is or was a token of this name.
    """
    actor.must_administer()
    if not _NAME.fullmatch(name):
        raise InvalidInput("A name has 1 to 80 lower-case letters, digits and . _ - such as 'ci'.", code="bad_name")
    if days is not None and not 1 <= days <= MAX_DAYS:
        raise InvalidInput(f"days must be from 1 to {MAX_DAYS:,}, or nothing for no end.")
    secret, at = new_token(), db.now()
    row = insert(ApiToken).values(
        name=name,
        token_hash=hash_token(secret),
        role=role,
        created_by=actor.name,
        created_at=at,
        expires_at=at + timedelta(days=days) if days is not None else None,
    )
    async with db.transaction() as session:
        token = await session.scalar(row.on_conflict_do_nothing(index_elements=["name"]).returning(ApiToken))
        if token is None:
            raise Conflict(f"There is or was a token named '{name}'. Choose another name.", code="token_exists")
        until = f" until {token.expires_at:%Y-%m-%d}" if token.expires_at else ""
        message = f"The API token {name} was made, as {role}{until}"
        record_event(session, "token.created", message, actor=actor, at=at)
        return _view_of(token), secret


async def list_api_tokens(db: Database) -> list[ApiTokenView]:
    """The tokens that still work, by name."""
    query = select(ApiToken).where(
        ApiToken.revoked_at.is_(None), ApiToken.expires_at.is_(None) | (ApiToken.expires_at > db.now())
    )
    async with db.transaction() as session:
        return [_view_of(row) for row in await session.scalars(query.order_by(ApiToken.name))]


async def revoke_api_token(db: Database, token_id: int, *, actor: Actor) -> None:
    """Ends a token, and with it the invites and tokens that were made with it.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such token.
    """
    actor.must_administer()
    async with db.transaction() as session:
        token = await session.get(ApiToken, token_id, with_for_update=True)
        if token is None:
            raise NotFound("There is no such API token.")
        if token.revoked_at is None:
            token.revoked_at = db.now()
            await end_what_was_made(session, [f"admin:token:{token.name}"], roles=list(Role), at=db.now())
            message = f"The API token {token.name} was revoked"
            record_event(session, "token.revoked", message, actor=actor, at=db.now())


def _view_of(token: ApiToken) -> ApiTokenView:
    return ApiTokenView(
        id=token.id,
        name=token.name,
        role=Role(token.role),
        created_by=token.created_by,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )
