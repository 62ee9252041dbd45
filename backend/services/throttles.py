"""Throttles: only failures are counted, under a key that names what was guessed or where the guess came from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Throttled
from backend.models import LoginFailure


@dataclass(frozen=True, slots=True)
class Throttle:
    """How many failures of one key are allowed within ``window_s`` seconds."""

    attempts: int = 10
    window_s: int = 300


async def check(session: AsyncSession, db: Database, throttle: Throttle, *keys: str) -> None:
    """Refuses a further guess under any of these keys.

    Raises:
        Throttled: too many failures; says when to return.
    """
    since = db.now() - timedelta(seconds=throttle.window_s)
    for key in keys:
        query = select(func.count(), func.min(LoginFailure.at)).where(LoginFailure.key == key, LoginFailure.at > since)
        failures, first_at = (await session.execute(query)).one()
        if failures >= throttle.attempts:
            wait_s = max(1, int((first_at - since).total_seconds()))
            raise Throttled(f"Too many failed attempts. Try again in {wait_s} s.", retry_after_s=wait_s)


def record_failure(session: AsyncSession, db: Database, *keys: str) -> None:
    """Counts a failure under each of these keys."""
    session.add_all(LoginFailure(key=key, at=db.now()) for key in keys)
