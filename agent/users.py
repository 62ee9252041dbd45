"""Users of sessions: where the agent is root, each session has one of its own, who owns nothing else and stays nowhere.

An agent that is not root can make no users: what runs in its sessions then runs as the agent's own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import random
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

PREFIX = "lab-"
# Above what distributions give out, below what a small user namespace lacks; drawn at random, so that the files one
# user may have left somewhere do not become the next one's.
FIRST_UID, LAST_UID = 20_000, 59_999
COMMAND_S, KILLS = 30.0, 50
_LOCK = Path("/run/lock/lablink-users.lock")
_NO_SUCH_USER = 6


class UserError(Exception):
    """A user could not be made or removed; the message is for people."""


def can_make_users() -> bool:
    """Whether sessions get users of their own here."""
    return os.geteuid() == 0


def new_name() -> str:
    """A name that nobody has had."""
    return PREFIX + secrets.token_hex(4)


def ensure_user(name: str, home: Path) -> int:
    """Makes the user unless it exists, without a password and in no group but its own. Returns its number.

    Raises:
        UserError: it could not be made.
    """
    uid = find_uid(name)
    if uid is None:
        with _one_at_a_time():
            shell = shutil.which("bash") or "/bin/sh"
            what = (
                "--uid",
                str(_free_uid()),
                "--home-dir",
                str(home),
                "--shell",
                shell,
                "--comment",
                "LabLink session",
            )
            # No subordinate numbers: what would be owned by one is nobody's by name.
            none = ("--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0")
            _run("useradd", "--no-log-init", "--no-create-home", "--user-group", *none, *what, name)
        uid = find_uid(name)
    if uid is None:
        raise UserError(f"the user {name} was not made")
    return uid


def find_uid(name: str) -> int | None:
    """The user's number, if there is such a user."""
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def remove_user(name: str) -> None:
    """Removes a user of whom nothing else is left.

    Raises:
        UserError: it could not be removed.
    """
    if find_uid(name) is not None:
        with _one_at_a_time():
            _run("userdel", name, ok=(0, _NO_SUCH_USER))
    if find_uid(name) is not None:
        raise UserError(f"the user {name} could not be removed")


def list_processes(uid: int) -> list[psutil.Process]:
    """The living processes of a user."""
    found = []
    for process in psutil.process_iter(["uids"]):
        uids = process.info["uids"]
        if uids is not None and uid in uids and not is_zombie(process):
            found.append(process)
    return found


def is_zombie(process: psutil.Process) -> bool:
    """Whether a process has ended already: who has not buried it yet is not our business."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def kill_all(uid: int) -> None:
    """Ends all processes of a user at once, so that none can start another meanwhile."""
    for _ in range(KILLS):
        if not list_processes(uid):
            return
        # As the user itself: the kernel then means every process of this user and no other, in one go. Where the user
        # has as many as it may, none can be started for this until one has ended.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                ["/bin/sh", "-c", "kill -KILL -1"], user=uid, group=uid, extra_groups=[], timeout=COMMAND_S, check=False
            )


def _free_uid() -> int:
    while True:
        uid = random.randint(FIRST_UID, LAST_UID)  # noqa: S311 - rarely the same, not secret
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid


def _run(program: str, *arguments: str, ok: tuple[int, ...] = (0,)) -> None:
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=COMMAND_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        raise UserError(f"{program} could not be run: {exc}") from exc
    if done.returncode not in ok:
        raise UserError(f"{program}: {done.stderr.strip()[:200] or f'exit status {done.returncode}'}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Across processes: the system's own lock makes those who wait sleep for whole seconds."""
    with os.fdopen(os.open(_LOCK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
