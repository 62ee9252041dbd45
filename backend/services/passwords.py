"""Passwords: what makes one acceptable, how it is kept, and whether one is right."""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64encode

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.low_level import ARGON2_VERSION

from backend.errors import InvalidInput

MIN_PASSWORD, MAX_PASSWORD = 12, 1_000
# Argon2id with the library's defaults, which follow RFC 9106 (low-memory profile); computed off the event loop.
_hasher = PasswordHasher()


def _make_decoy() -> str:
    """A hash that no password has, as long to verify as any. To make a true one would cost each start."""
    salt, digest = (b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (16, _hasher.hash_len))
    costs = f"m={_hasher.memory_cost},t={_hasher.time_cost},p={_hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${digest}"


# Verified against when there is no such user, so that the time tells nothing.
_decoy = _make_decoy()


def check_password(name: str, password: str) -> None:
    """Whether this may become the password of ``name``. Length is what counts; no rule asks for odd characters.

    Raises:
        InvalidInput: too short, too long, or the name itself.
    """
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        sentence = f"A password has {MIN_PASSWORD} to {MAX_PASSWORD:,} characters."
        raise InvalidInput(sentence, code="weak_password")
    if password.strip().casefold() == name.casefold():
        raise InvalidInput("The password must not be the user's name.", code="weak_password")
    if not password.isascii() and password != password.encode(errors="replace").decode():
        raise InvalidInput("The password holds characters that cannot be stored.", code="weak_password")


async def hash_password(password: str) -> str:
    """What is stored of a password: argon2id in its own PHC string format."""
    return await asyncio.to_thread(_hasher.hash, password)


async def is_right_password(hashed: str | None, password: str) -> bool:
    """Whether this is the password; takes as long where there is none."""
    is_right = await asyncio.to_thread(_verify, hashed or _decoy, password[:MAX_PASSWORD])
    return is_right and hashed is not None


def _verify(hashed: str, password: str) -> bool:
    try:
        return _hasher.verify(hashed, password)
    except (VerifyMismatchError, InvalidHashError, UnicodeEncodeError):
        return False
