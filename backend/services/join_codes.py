"""Join codes: one for each pool at a time, for the lecture hall's screen; with a start, an end and a number of uses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Forbidden, InvalidInput, NotFound
from backend.models import JoinCode, Pool
from backend.services.actor import Actor
from backend.services.codes import JOIN_CODE, is_code, new_code, show_code, tidy_code
from backend.services.guesses import WrongCode, counting_guesses
from backend.services.moves import record_event
from backend.services.pools import get_pool_row
from backend.states import Access

MAX_USES = 1_000_000
_WRONG = "This is not the join code. Check it with your organiser: codes can be replaced."


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """When a code is valid and for how many claims; None is no limit."""

    starts_at: datetime | None = None
    ends_at: datetime | None = None
    max_uses: int | None = None


@dataclass(frozen=True, slots=True)
class JoinCodeView:
    """A join code as people see it; ``code`` reads ``XXXX-XXXX``."""

    code: str
    limits: CodeLimits
    uses: int
    created_by: str
    created_at: datetime

    def state(self, at: datetime) -> str | None:
        """Why nobody can claim with it at that moment, in words; None: everybody can."""
        return _why_not(self.limits, self.uses, at)


async def rotate_code(db: Database, pool_name: str, limits: CodeLimits, *, actor: Actor) -> JoinCodeView:
    """Makes a new code for a pool; the old one dies at once. Seats claimed with it stay.

    Raises:
        NotFound: no such pool.
        InvalidInput: the limits make no sense.
    """
    actor.must_operate()
    _check(limits, db.now())
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        return view_of(await replace_code(session, db, pool, limits, actor=actor))


async def limit_code(db: Database, pool_name: str, limits: CodeLimits, *, actor: Actor) -> JoinCodeView:
    """Changes the limits of a pool's present code.

    Raises:
        NotFound: no such pool, or it has no code.
        InvalidInput: the limits make no sense.
    """
    actor.must_operate()
    _check(limits, db.now())
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name, lock=True)
        row = await find_code_row(session, pool.id)
        if row is None:
            raise NotFound(f"Pool {pool_name} has no join code.")
        row.starts_at, row.ends_at, row.max_uses = limits.starts_at, limits.ends_at, limits.max_uses
        message = f"The limits of the join code of {pool.name} were changed"
        record_event(session, "code.limited", message, actor=actor, at=db.now(), pool_id=pool.id)
        return view_of(row)


async def find_code(db: Database, pool_id: int) -> JoinCodeView | None:
    """The present code of a pool."""
    async with db.transaction() as session:
        row = await find_code_row(session, pool_id)
        return view_of(row) if row else None


async def find_pool_by_code(db: Database, typed: str, *, address: str | None) -> tuple[str, str]:
    """The name of the pool that a code is for, and the code as it is shown.

    Raises:
        Forbidden: there is no such code.
        Throttled: too many wrong ones from this address.
    """
    query = (
        select(Pool.name, JoinCode.code)
        .join(JoinCode, JoinCode.pool_id == Pool.id)
        .where(JoinCode.code == tidy_code(typed), JoinCode.revoked_at.is_(None), Pool.access == Access.CODE)
    )
    async with counting_guesses(db, address), db.transaction() as session:
        found = (await session.execute(query)).first() if is_code(typed, JOIN_CODE) else None
        if found is None:
            raise WrongCode(_WRONG)
        return found[0], show_code(found[1])


async def replace_code(
    session: AsyncSession, db: Database, pool: Pool, limits: CodeLimits, *, actor: Actor
) -> JoinCode:
    """The rotation itself, as a step of a transaction that holds the pool locked."""
    old = await find_code_row(session, pool.id)
    if old is not None:
        old.revoked_at = db.now()
        # The index allows one living code: the old one must be gone first.
        await session.flush()
    row = JoinCode(
        pool_id=pool.id,
        code=new_code(JOIN_CODE),
        starts_at=limits.starts_at,
        ends_at=limits.ends_at,
        max_uses=limits.max_uses,
        uses=0,
        created_by=actor.name,
        created_at=db.now(),
    )
    session.add(row)
    await session.flush()
    message = f"{pool.name} got a {'new ' if old else ''}join code"
    record_event(session, "code.rotated", message, actor=actor, at=db.now(), pool_id=pool.id)
    return row


async def find_code_row(session: AsyncSession, pool_id: int) -> JoinCode | None:
    """The row of a pool's present code, for services only."""
    return await session.scalar(select(JoinCode).where(JoinCode.pool_id == pool_id, JoinCode.revoked_at.is_(None)))


async def check_code(session: AsyncSession, db: Database, pool_id: int, typed: str | None) -> int:
    """The id of the pool's code, if that is what was typed and somebody may claim with it now.

    Raises:
        Forbidden: it is missing or wrong, or it is not valid now.
    """
    if not typed or not typed.strip():
        raise Forbidden("This workshop needs its join code. Your organiser shows it.", code="code_needed")
    row = await find_code_row(session, pool_id)
    if row is None or tidy_code(typed) != row.code:
        raise WrongCode(_WRONG)
    # Only who knows the code learns this much.
    why = view_of(row).state(db.now())
    if why is not None:
        raise Forbidden(f"This join code {why}.", code="code_not_valid")
    return row.id


async def count_use(session: AsyncSession, code_id: int) -> None:
    """Counts a claim; call it last, so that the code's row is locked for the commit only.

    Raises:
        Forbidden: other claims were faster, and the code is used up or replaced.
    """
    row = (
        update(JoinCode)
        .where(
            JoinCode.id == code_id,
            JoinCode.revoked_at.is_(None),
            JoinCode.max_uses.is_(None) | (JoinCode.uses < JoinCode.max_uses),
        )
        .values(uses=JoinCode.uses + 1)
        .returning(JoinCode.id)
        .execution_options(synchronize_session=False)
    )
    if await session.scalar(row) is None:
        raise Forbidden("This join code has just been used up or replaced.", code="code_not_valid")


def view_of(row: JoinCode) -> JoinCodeView:
    """The picture of a row."""
    limits = CodeLimits(row.starts_at, row.ends_at, row.max_uses)
    return JoinCodeView(show_code(row.code), limits, row.uses, row.created_by, row.created_at)


def _why_not(limits: CodeLimits, uses: int, at: datetime) -> str | None:
    if limits.starts_at is not None and at < limits.starts_at:
        return f"is valid from {limits.starts_at:%Y-%m-%d %H:%M} UTC on"
    if limits.ends_at is not None and at >= limits.ends_at:
        return f"was valid until {limits.ends_at:%Y-%m-%d %H:%M} UTC"
    if limits.max_uses is not None and uses >= limits.max_uses:
        return f"is used up: it was for {limits.max_uses} claims"
    return None


def _check(limits: CodeLimits, at: datetime) -> None:
    if limits.max_uses is not None and not 1 <= limits.max_uses <= MAX_USES:
        raise InvalidInput(f"The number of uses must be from 1 to {MAX_USES:,}, or nothing for no limit.")
    if limits.ends_at is not None and limits.ends_at <= (limits.starts_at or at):
        raise InvalidInput("The code must end after it starts, and not in the past.")
