"""Guesses: whoever tries codes, links and keys is slowed down; whoever brings the right one never is.

Only failures are counted, for each kind of thing that is guessed and each address: in a lecture hall 300 people share
one address, and the typing errors of some must not lock out the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.db.engine import Database
from backend.errors import Forbidden, SeatExists, Unauthenticated
from backend.services.throttles import Throttle, keys_of, record_failure

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
        async with db.transaction() as session:
            keys = keys_of(_GUESSED[type(refusal)], address)
            await record_failure(session, db, keys, GUESSES, address=address)
        raise
