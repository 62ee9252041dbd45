"""A researcher's session on this machine: a directory and, where the agent is root, a user of its own, so that removing
both removes everything of it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.crontabs import CRONTAB, find_crontab_state
from agent.store import Store
from agent.users import UserError, can_make_users, ensure_user, find_uid, new_name

# The agent's own directory is closed to others: a session's user could not even reach a home in there.
USERS_HOMES = Path("/var/lib/lablink/sessions")
# What a session may see of the agent's environment: never the agent's own variables.
_PASSED = ("PATH", "LANG", "LC_ALL", "TZ")
# By this variable what runs in a session is found again at its end, in a container as well.
MARK = "LABLINK_SESSION"
_PROFILE = """\
# The prompt names the machine.
if [ -n "$BASH_VERSION" ]; then PS1='\\u@'"$HOSTNAME"':\\w\\$ '; else PS1="${USER:-$(id -un)}@$HOSTNAME:\\$ "; fi
"""


class SessionError(Exception):
    """The session could not be made or removed; the message is for people."""


@dataclass(frozen=True, slots=True)
class Session:
    """One session. Whatever runs in it is started with ``environment()`` and ``identity()``."""

    claim_id: int
    directory: Path
    hostname: str
    user: str | None = None

    @property
    def home(self) -> Path:
        """Its home directory."""
        return self.directory / "home"

    @property
    def tmp(self) -> Path:
        """Its temporary directory."""
        return self.directory / "tmp"

    def environment(self) -> dict[str, str]:
        """The environment of everything that runs in it."""
        passed = {name: os.environ[name] for name in _PASSED if name in os.environ}
        user = self.user or getpass.getuser()
        own = {"HOME": str(self.home), "TMPDIR": str(self.tmp), "HOSTNAME": self.hostname, MARK: str(self.directory)}
        return {**passed, **own, "USER": user, "LOGNAME": user}

    def identity(self) -> dict[str, Any]:
        """As whom everything in it runs, as arguments of ``subprocess.Popen``."""
        if self.user is None:
            return {}
        uid = find_uid(self.user)
        if uid is None:
            raise SessionError(f"the session's user {self.user} is gone")
        return {"user": uid, "group": pwd.getpwuid(uid).pw_gid, "extra_groups": []}


def prepare_session(store: Store, claim_id: int, hostname: str) -> Session:
    """Ensures the session of a claim.

    Raises:
        SessionError: it could not be made.
    """
    record = record_of(store, claim_id)
    record.mkdir(mode=0o700, parents=True, exist_ok=True)
    if can_make_users() and not (record / "user").exists():
        # Before there is such a user: whatever comes next, it is found again.
        store.write(record / "user", new_name())
    session = session_of(store, claim_id, hostname)
    if session.user is not None:
        try:
            ensure_user(session.user, session.home)
        except UserError as exc:
            raise SessionError(str(exc)) from exc
    else:
        _note_crontab(store, record)
    _make_directories(session)
    return session


def find_session(store: Store, claim_id: int, hostname: str) -> Session | None:
    """The session of a claim, if it was prepared and not yet removed."""
    session = session_of(store, claim_id, hostname)
    return session if session.home.is_dir() else None


def list_sessions(store: Store) -> list[int]:
    """The claims that have a session here, or the rest of one."""
    directory = store.home / "sessions"
    return sorted(int(path.name) for path in directory.glob("*") if path.name.isdigit()) if directory.is_dir() else []


def record_of(store: Store, claim_id: int) -> Path:
    """Where the agent itself keeps what it knows of the session; without a user, all of the session is there."""
    return store.home / "sessions" / str(claim_id)


def session_of(store: Store, claim_id: int, hostname: str) -> Session:
    """The session of a claim as it would be, whatever is there of it."""
    record = record_of(store, claim_id)
    try:
        user = (record / "user").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return Session(claim_id, record, hostname)
    return Session(claim_id, USERS_HOMES / user, hostname, user)


def _note_crontab(store: Store, record: Path) -> None:
    """Without a user of its own, a session may leave jobs in the agent's: not ours to touch, but to be seen."""
    if not (record / CRONTAB).exists() and (state := find_crontab_state()) is not None:
        store.write(record / CRONTAB, state)


def _make_directories(session: Session) -> None:
    uid = find_uid(session.user) if session.user else None
    session.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None:
        # Its user may pass through to what is its own; only root can rename or replace that.
        for directory in (USERS_HOMES.parent, USERS_HOMES, session.directory):
            directory.chmod(0o711)
    for part in (session.home, session.tmp):
        part.mkdir(mode=0o700, exist_ok=True)
        _give(part, uid)
    for name in (".profile", ".bashrc"):
        _write_once(session.home / name, _PROFILE, uid)


def _write_once(path: Path, content: str, uid: int | None) -> None:
    """What exists is the researcher's own and stays, whatever it is."""
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(content)
        _give(path, uid)


def _give(path: Path, uid: int | None) -> None:
    if uid is not None:
        os.chown(path, uid, pwd.getpwuid(uid).pw_gid, follow_symlinks=False)
