"""Terraform's lock on a state that lies elsewhere: who holds it, and whether a dead run of ours left it behind.

A lock of the S3 backend is a file beside the state. It outlives a Terraform that was killed, and one whose credentials
ended before it could remove it. (The lock on a state in a directory is the kernel's and ends with its process.)
"""

from __future__ import annotations

import json
import os
import pwd
import re
import socket
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

# A run takes its lock before all else; only a machine that can hardly breathe takes this long to get there.
TAKEN_WITHIN = timedelta(seconds=120)
_FILE = "terraform.locks.json"
_INFO = re.compile(
    r"Lock Info:\s+ID:\s+(?P<id>\S+)\s.*?Operation:\s+(?P<operation>\S*)\s+Who:\s+(?P<who>\S+)\s"
    r".*?Created:\s+(?P<day>[\d-]+) (?P<time>[\d:]+)(?P<fraction>\.\d+)?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock as Terraform shows it. ``who``: user and machine; ``operation``: a word such as ``apply``."""

    id: str
    who: str
    operation: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of ours that may have left a lock; times in seconds since 1970. ``ended_at`` is None if nobody saw it."""

    who: str
    began_at: float
    ended_at: float | None = None


class RunNotes:
    """The runs of one directory since the last that ended well, so that their locks are known as ours.

    Only one runs at a time, and whoever comes next ends what still runs (``end_leftover``): all that is noted is dead.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE

    def note_begin(self) -> None:
        """A run begins that will take the lock."""
        self._write([*self._read(), _Run(_who_we_are(), datetime.now(UTC).timestamp())])

    def note_end(self) -> None:
        """The last run has ended badly, before our eyes: its lock may have stayed."""
        *former, last = self._read()
        self._write([*former, replace(last, ended_at=datetime.now(UTC).timestamp())])

    def drop_last(self) -> None:
        """The last run never got the lock."""
        self._write(self._read()[:-1])

    def forget(self) -> None:
        """A run got the lock and gave it back: nothing is left of those before it."""
        self._file.unlink(missing_ok=True)

    def __bool__(self) -> bool:
        return bool(self._read())

    def is_left_by_us(self, lock: Lock) -> bool:
        """Whether one of these runs, and nobody else, can have taken this lock."""
        created_at = lock.created_at.timestamp()
        return any(
            run.who == lock.who
            and run.began_at
            <= created_at
            <= min(run.ended_at or created_at, run.began_at + TAKEN_WITHIN.total_seconds())
            for run in self._read()
        )

    def _read(self) -> list[_Run]:
        try:
            return [_Run(**each) for each in json.loads(self._file.read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []

    def _write(self, runs: list[_Run]) -> None:
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps([asdict(each) for each in runs]), encoding="utf-8")
        temporary.replace(self._file)


def find_lock(said: str) -> Lock | None:
    """The lock that Terraform could not get, as its error shows it."""
    found = _INFO.search(said) if "acquiring the state lock" in said else None
    if found is None:
        return None
    at = datetime.fromisoformat(f"{found['day']}T{found['time']}+00:00")
    seconds = float(found["fraction"] or 0)
    operation = found["operation"].removeprefix("OperationType").lower()
    return Lock(found["id"], found["who"], operation or "run", at + timedelta(seconds=seconds))


def _who_we_are() -> str:
    """As Terraform calls whoever runs it (its ``statemgr.NewLockInfo``): user@machine."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = os.environ.get("USER", "")
    return f"{user}@{socket.gethostname()}"
