"""The id of the request that is being answered: in every line of the log, every event and command that comes of it."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

_FORM = re.compile(r"[A-Za-z0-9._-]{8,64}")
_current: ContextVar[str | None] = ContextVar("request_id", default=None)


def begin_request(given: str = "") -> str:
    """From here on this task answers a request: under the id that a proxy has given it, or under a new one."""
    request_id = given if _FORM.fullmatch(given) else uuid.uuid4().hex
    _current.set(request_id)
    return request_id


def resume_request(request_id: str | None) -> None:
    """From here on this task goes on with what a request has asked for; without an id it comes of none."""
    _current.set(request_id)


def find_request_id() -> str | None:
    """The id, if this comes of a request and not of a rule of ours."""
    return _current.get()


def request_data() -> dict[str, str]:
    """The id as it is kept beside what comes of the request."""
    request_id = _current.get()
    return {"request_id": request_id} if request_id else {}
