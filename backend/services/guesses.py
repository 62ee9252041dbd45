"""Guesses: whoever tries codes, links and keys is slowed down; whoever brings the right one never is.

Only failures are counted, for each kind of thing that is guessed and each address: in a lecture hall 300 people share
one address, and the typing errors of some must not lock out the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Forbidden, SeatExists, Unauthenticated
from backend.models import LoginFailure
from backend.services.sign_in import Throttle, check_throttle

GUESSES = Throttle(attempts=15, window_s=300)


class WrongCode(Forbidden):
    """A join code that is none."""

    code = "wrong_code"


class WrongLink(Forbidden):
    """A personal link that is none, or no more."""

    code = "wrong_link"


class WrongKey(Unauthenticated):
    """A seat key that opens nothing."""

    code = "wrong_key"


_GUESSED: dict[type[Exception], str] = {
    WrongCode: "code",
    WrongLink: "link",
    WrongKey: "key",
    # Who is told that a seat exists has learned something about a person.
    SeatExists: "seat",
}


@asynccontextmanager
async def counting_guesses(db: Database, address: str | None) -> AsyncIterator[None]:
    """Counts the refusals of wrong guesses that leave the block; put it around the transaction, which rolls back.

    Raises:
        Throttled: there were too many; in place of the refusal.
    """
    try:
        yield
    except tuple(_GUESSED) as refusal:
        await _count(db, f"{_GUESSED[type(refusal)]}:{address}")
        raise


async def _count(db: Database, key: str) -> None:
    async with db.transaction() as session:
        # One at a time: else a thousand guesses at once would each see that there were none before.
        await session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})
        await check_throttle(session, db, key, GUESSES)
        session.add(LoginFailure(key=key, at=db.now()))
