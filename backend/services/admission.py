"""Admission: who may claim in a pool, and what somebody must bring along for it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Forbidden, InvalidInput
from backend.keys import KeyRing
from backend.models import Pool
from backend.services.actor import Actor
from backend.services.emails import check_email
from backend.services.join_codes import CodeLimits, check_code, find_code_row, replace_code
from backend.services.moves import record_event
from backend.services.pools import get_pool_row, view_of
from backend.services.rosters import find_linked
from backend.services.views import PoolView
from backend.states import Access

MAX_GROUP = 255
WORDS: dict[Access, str] = {
    Access.OPEN: "anyone with the link",
    Access.CODE: "whoever knows the join code",
    Access.ROSTER: "whoever has a personal link",
    Access.OIDC: "whoever the organisation's sign-in vouches for",
}


class Vouched(Protocol):
    """Somebody whom the organisation's sign-in vouches for."""

    @property
    def subject(self) -> str:
        """Who it is, for ever the same."""

    @property
    def email(self) -> str:
        """Their e-mail."""

    @property
    def groups(self) -> Collection[str]:
        """What they belong to."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What somebody brings along: a join code, a personal link, the organisation's word. ``keys`` made the links."""

    code: str | None = None
    link: str | None = None
    person: Vouched | None = None
    keys: KeyRing | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may claim. ``person`` is set if it is proven who they are; ``code_id`` is the code whose use must count."""

    email: str
    person: str | None = None
    code_id: int | None = None


NO_PROOF = Proof()


async def set_access(
    db: Database, pool_name: str, access: Access, *, oidc_group: str | None = None, actor: Actor
) -> PoolView:
    """Says who may claim in a pool from now on; seats stay. The first time by code makes a code.

    Raises:
        NotFound: no such pool.
        InvalidInput: the group's name is too long.
    """
    actor.must_administer()
    group = (oidc_group or "").strip()
    if len(group) > MAX_GROUP or not group.isprintable():
        raise InvalidInput(f"A group's name has up to {MAX_GROUP} characters.")
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        pool.access, pool.oidc_group, pool.updated_at = access, group or None, db.now()
        among = f", of the group {group}" if group and access is Access.OIDC else ""
        message = f"Claims in {pool_name} are for {WORDS[access]}{among}"
        record_event(session, "pool.access", message, actor=actor, at=db.now(), pool_id=pool.id)
        if access is Access.CODE and await find_code_row(session, pool.id) is None:
            await replace_code(session, db, pool, CodeLimits(), actor=actor)
        return view_of(pool)


async def admit(session: AsyncSession, db: Database, pool: Pool, email: str | None, proof: Proof) -> Admitted:
    """Whom to claim for, if they may claim at all.

    Raises:
        Forbidden: what the pool asks for is missing or wrong; the code says what.
        InvalidInput: not an e-mail, where the e-mail is what they say it is.
    """
    access = Access(pool.access)
    if access is Access.ROSTER:
        entry = await find_linked(session, pool.id, proof.link, proof.keys)
        return Admitted(entry.email, person=f"roster:{entry.id}")
    if access is Access.OIDC:
        person = _check_person(pool, proof.person)
        return Admitted(check_email(person.email), person=f"oidc:{person.subject}")
    # The e-mail first: a slip of the pen there must not cost a guess.
    email = check_email(email or "")
    code_id = await check_code(session, db, pool.id, proof.code) if access is Access.CODE else None
    return Admitted(email, code_id=code_id)


def _check_person(pool: Pool, person: Vouched | None) -> Vouched:
    if person is None:
        raise Forbidden("This workshop needs your organisation's sign-in.", code="sign_in_needed")
    if pool.oidc_group is not None and pool.oidc_group not in person.groups:
        raise Forbidden("Your organisation's sign-in does not count you among this workshop.", code="not_in_group")
    return person
