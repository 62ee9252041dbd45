"""Every refusal that LabLink gives, as one tree: a code for programs, a sentence for people, an HTTP status.

Services raise these; the REST surface and the pages only translate them.
"""

from __future__ import annotations

from typing import ClassVar


class LabLinkError(Exception):
    """A refusal with a stable ``code`` and a sentence that says what to do."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.retry_after_s = retry_after_s


class InvalidInput(LabLinkError):
    """The request itself is wrong and will be wrong again."""

    code = "invalid"
    status = 422


class Unauthenticated(LabLinkError):
    """No credential, or one that is unknown, expired or used up."""

    code = "unauthenticated"
    status = 401


class Revoked(Unauthenticated):
    """A credential that was right once: who shows it guesses nothing."""


class Forbidden(LabLinkError):
    """A valid credential that may not do this."""

    code = "forbidden"
    status = 403


class NotFound(LabLinkError):
    """The thing named does not exist, or the caller may not know that it does."""

    code = "not_found"
    status = 404


class Conflict(LabLinkError):
    """The request is right but the present state does not allow it."""

    code = "conflict"
    status = 409


class IllegalMove(Conflict):
    """A status change that the table of legal transitions does not hold."""

    code = "illegal_move"


class SeatExists(Conflict):
    """This e-mail already holds a seat in the pool; says nothing about that seat."""

    code = "seat_exists"

    def __init__(self) -> None:
        super().__init__(
            "This e-mail already has a seat in this pool. Open it with your seat key or in the browser "
            "you claimed it with, or ask an organiser."
        )


class Gone(LabLinkError):
    """What was asked for existed and is over."""

    code = "gone"
    status = 410


class Throttled(LabLinkError):
    """Too many failures for this key; tells when to return."""

    code = "throttled"
    status = 429


class Unavailable(LabLinkError):
    """A part below us (usually Postgres) is away; the same request may succeed later."""

    code = "unavailable"
    status = 503
