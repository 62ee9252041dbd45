"""The second step of a sign-in: a code that an app makes every 30 seconds (TOTP, RFC 6238). Each code works once."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime

import pyotp
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput
from backend.keys import KeyRing
from backend.models import User
from backend.services.actor import Actor
from backend.services.moves import record_event
from backend.services.people import check_own_password, get_user_row
from backend.services.throttles import Key, Throttle, check, record_failure

ISSUER = "LabLink"
STEP_S = 30
# The clock of a phone may be this many steps away from ours.
DRIFT = 1
WRONG_CODE = "This code is wrong or was used already. Wait for the next one."


@dataclass(frozen=True, slots=True)
class Setup:
    """What the app needs, shown once: ``uri`` as a QR code, or ``secret`` to type in."""

    secret: str
    uri: str


async def begin_second_step(
    db: Database, user_id: int, password: str, *, keys: KeyRing, throttle: Throttle, actor: Actor
) -> Setup:
    """A fresh secret for the user's app; it counts once a code of it was confirmed.

    Raises:
        InvalidInput: the password is wrong.
        Conflict: the second step is on already.
        Throttled: too many wrong passwords.
    """
    name = await check_own_password(db, user_id, password, throttle=throttle, actor=actor)
    secret = pyotp.random_base32()
    async with db.transaction() as session:
        user = await session.get_one(User, user_id, with_for_update=True)
        if user.totp_confirmed_at is not None:
            raise Conflict("The second step is on already. Turn it off first.", code="second_step_on")
        user.totp_secret, user.totp_last_step = keys.seal(secret), None
    return Setup(secret, pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=ISSUER))


async def confirm_second_step(
    db: Database, user_id: int, code: str, *, keys: KeyRing, throttle: Throttle, actor: Actor
) -> None:
    """Turns the second step on: the first code shows that the app has the secret.

    Raises:
        InvalidInput: the code is wrong.
        Conflict: there is nothing to confirm.
        Throttled: too many wrong codes.
    """
    key = guess_key(user_id)
    async with db.transaction() as session:
        await check(session, db, key, throttle)
        user = await session.get_one(User, user_id, with_for_update=True)
        if user.totp_secret is None or user.totp_confirmed_at is not None:
            raise Conflict("There is no second step to confirm. Set it up again.", code="no_second_step")
        is_right = use_code(user, code, keys=keys, at=db.now())
        if is_right:
            user.totp_confirmed_at = db.now()
            message = f"{user.name} turned the second step on"
            record_event(session, "user.second_step_on", message, actor=actor, at=db.now())
        else:
            await record_failure(session, db, key, throttle, address=actor.address)
    if not is_right:
        raise InvalidInput(WRONG_CODE, code="wrong_code")


async def end_own_second_step(db: Database, user_id: int, password: str, *, throttle: Throttle, actor: Actor) -> None:
    """Turns one's own second step off.

    Raises:
        InvalidInput: the password is wrong.
        Throttled: too many wrong passwords.
    """
    name = await check_own_password(db, user_id, password, throttle=throttle, actor=actor)
    async with db.transaction() as session:
        await _end(session, db, name, actor, f"{name} turned the second step off")


async def reset_second_step(db: Database, name: str, *, actor: Actor) -> None:
    """Turns the second step of somebody who lost the phone off.

    Raises:
        Forbidden: only an admin may.
        NotFound: no such user.
        Conflict: it is off.
    """
    actor.must_administer()
    async with db.transaction() as session:
        if not await _end(session, db, name, actor, f"The second step of {name} was reset"):
            raise Conflict(f"{name} has no second step.", code="no_second_step")


def use_code(user: User, code: str, *, keys: KeyRing, at: datetime) -> bool:
    """Whether this code is right now; the user's row is locked, and the code spent with it."""
    secret = keys.unseal(user.totp_secret or "")
    typed = "".join(code.split())
    if secret is None or not (typed.isascii() and typed.isdigit()):
        return False
    now, totp = int(at.timestamp()) // STEP_S, pyotp.TOTP(secret)
    for step in range(now - DRIFT, now + DRIFT + 1):
        is_fresh = user.totp_last_step is None or step > user.totp_last_step
        if is_fresh and hmac.compare_digest(totp.generate_otp(step), typed):
            user.totp_last_step = step
            return True
    return False


def guess_key(user_id: int) -> tuple[Key, ...]:
    """What wrong codes are counted under: only who knows the password gets as far as guessing them."""
    return (Key(f"second_step:{user_id}"),)


async def _end(session: AsyncSession, db: Database, name: str, actor: Actor, message: str) -> bool:
    user = await get_user_row(session, name, lock=True)
    was_on = user.totp_confirmed_at is not None
    user.totp_secret = user.totp_confirmed_at = user.totp_last_step = None
    if was_on:
        record_event(session, "user.second_step_off", message, actor=actor, at=db.now())
    return was_on
