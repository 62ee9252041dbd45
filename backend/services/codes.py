"""Codes that people read, say and type: join codes and seat keys."""

from __future__ import annotations

import secrets

# Crockford's base 32: 5 bits a character. It has no I, L, O and U; who types one of the first three means 1, 1 and 0.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
JOIN_CODE, SEAT_KEY = 8, 16
MAX_TYPED = 128
_MEANT = str.maketrans("OIL", "011")


def new_code(length: int) -> str:
    """A random code of ``length`` characters: 40 bits for a join code, 80 for a seat key."""
    return "".join(ALPHABET[byte % len(ALPHABET)] for byte in secrets.token_bytes(length))


def tidy_code(typed: str) -> str:
    """What was typed, as codes are stored: without hyphens, spaces and case."""
    return "".join(character for character in typed[:MAX_TYPED].upper() if character.isalnum()).translate(_MEANT)


def is_code(typed: str, length: int) -> bool:
    """Whether this could be a code of this length."""
    tidy = tidy_code(typed)
    return len(tidy) == length and all(character in ALPHABET for character in tidy)


def show_code(code: str) -> str:
    """``XXXX-XXXX``: as people read it best."""
    return "-".join(code[start : start + 4] for start in range(0, len(code), 4))
