"""E-mail addresses: labels of people, never proofs."""

from __future__ import annotations

import re

from backend.errors import InvalidInput

# Deliberately loose: one @, no spaces, no control or markup characters.
_EMAIL = re.compile(r"[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,64}@[^\s@<>\"'`\\,;\x00-\x1f\x7f]{1,189}")


# Nobody's: no mail server answers for .invalid (RFC 2606).
ROBOTS = "@robot.invalid"


def robot_email(hostname: str) -> str:
    """As whom a rehearsal's robot holds this machine."""
    return f"rehearsal-{hostname}{ROBOTS}"


def is_robot(email: str) -> bool:
    """Whether a claim of this e-mail is a robot's."""
    return email.lower().endswith(ROBOTS)


def check_email(email: str) -> str:
    """The e-mail of a person, trimmed.

    Raises:
        InvalidInput: it is not of the form name@place, longer than 254 characters, or a robot's.
    """
    trimmed = email.strip()
    if len(trimmed) > 254 or not _EMAIL.fullmatch(trimmed) or is_robot(trimmed):
        raise InvalidInput("Enter an e-mail address, such as ada@example.org.", code="invalid_email")
    return trimmed
