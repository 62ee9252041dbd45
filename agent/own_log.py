"""The agent's own log: text for people, or one JSON object a line for machines, named as the server names its own.

Each line bears the id of the request that the command which is being worked on came of.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

TEXT, JSON = "text", "json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
_current: ContextVar[str] = ContextVar("request_id", default="")


def set_up_logging(form: str) -> None:
    """Sends everything to standard error, as ``text`` or as ``json``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == JSON else TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("urllib3", "websockets"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@contextmanager
def asked_by(payload: Mapping[str, object]) -> Iterator[None]:
    """What this thread does within is done for the request that a command of this payload came of, if of one."""
    given = payload.get("request_id")
    token = _current.set(given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else "")
    try:
        yield
    finally:
        _current.reset(token)


def find_request_id() -> str:
    """The id, or nothing."""
    return _current.get()


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        request_id = find_request_id()
        return f"{super().format(record)} [{request_id}]" if request_id else super().format(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        said = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := find_request_id():
            said["request_id"] = request_id
        if record.exc_info:
            said["traceback"] = self.formatException(record.exc_info)
        return json.dumps(said)
