"""E-mail addresses: labels of people, never proofs."""

from __future__ import annotations

import re

from backend.errors import InvalidInput

# Deliberately loose: one @, no spaces, no control or markup characters.
_EMAIL = re.compile(r"[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,64}@[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,189}")


def check_email(email: str) -> str:
    """The e-mail, trimmed.

    Raises:
        InvalidInput: it is not of the form name@place, or longer than 254 characters.
    """
    trimmed = email.strip()
    if len(trimmed) > 254 or not _EMAIL.fullmatch(trimmed):
        raise InvalidInput("Enter an e-mail address, such as ada@example.org.", code="invalid_email")
    return trimmed
