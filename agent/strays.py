"""What a session's user leaves outside its home: files where every user of a machine may leave some, cron and at jobs,
mail, shared memory. Its number alone says whose they are: it was drawn for this session.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.wiping import wipe, wipe_in

# Where any user of a machine may leave files, and where its programs leave some for it.
SHARED_PLACES = (
    "/tmp",  # noqa: S108
    "/var/tmp",  # noqa: S108
    "/dev/shm",  # noqa: S108
    "/dev/mqueue",
    "/run/lock",
    "/run/screen",
    "/var/crash",
    "/var/mail",
    "/var/spool/mail",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/spool/cron/atjobs",
    "/var/spool/cron/atspool",
    "/var/spool/at",
    "/var/spool/at/spool",
)
# What bears the user's name and may be root's.
NAMED_PLACES = (
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
    "/var/mail",
    "/var/spool/mail",
    "/var/lib/systemd/linger",
)
RUNTIME_DIRECTORIES = Path("/run/user")
DEPTH = 16
_TABLES = {
    "shm": ("shared memory", "shmid"),
    "msg": ("message queue", "msqid"),
    "sem": ("semaphores", "semid"),
}
_REMOVE = 0  # IPC_RMID


@dataclass(frozen=True, slots=True)
class Segment:
    """A System V object of a user."""

    table: str
    number: int

    def __str__(self) -> str:
        return f"{_TABLES[self.table][0]} {self.number}"


def remove_strays(uid: int, user: str) -> None:
    """Removes all of it. Whether anything is left is for whoever looks afterwards."""
    for place in SHARED_PLACES:
        for parent, path in _walk(Path(place), uid):
            with contextlib.suppress(OSError):
                wipe_in(parent, path)
    for path in _list_named(uid, user):
        with contextlib.suppress(OSError):
            wipe(path)
    libc = ctypes.CDLL(None, use_errno=True)
    for segment in list_segments(uid):
        if segment.table == "sem":
            libc.semctl(segment.number, 0, _REMOVE)
        else:
            getattr(libc, f"{segment.table}ctl")(segment.number, _REMOVE, None)


def list_strays(uid: int, user: str) -> list[str]:
    """What is there, in words."""
    files = {path for place in SHARED_PLACES for _, path in _walk(Path(place), uid)}
    files.update(path for path in _list_named(uid, user) if os.path.lexists(path))
    return [*(f"the file {path}" for path in sorted(files)), *map(str, list_segments(uid))]


def list_segments(uid: int) -> list[Segment]:
    """The System V objects that a user owns or made."""
    found = []
    for table, (_, key) in _TABLES.items():
        try:
            lines = Path("/proc/sysvipc", table).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines[1:]:
            row = dict(zip(lines[0].split(), line.split(), strict=False))
            if str(uid) in (row["uid"], row["cuid"]):
                found.append(Segment(table, int(row[key])))
    return found


def _list_named(uid: int, user: str) -> list[Path]:
    return [RUNTIME_DIRECTORIES / str(uid), *(Path(place, user) for place in NAMED_PLACES)]


def _walk(place: Path, uid: int) -> Iterator[tuple[int, Path]]:
    """What a user owns in a place, each with the open directory that it lies in."""
    with contextlib.suppress(OSError):
        directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield from _walk_in(directory, place, uid, DEPTH)
        finally:
            os.close(directory)


def _walk_in(directory: int, path: Path, uid: int, depth: int) -> Iterator[tuple[int, Path]]:
    for name in os.listdir(directory):
        try:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            continue
        if found.st_uid == uid:
            yield directory, path / name
        # Only where everybody may write can anything of this user be.
        elif depth and found.st_mode & 0o170002 == 0o040002:
            with contextlib.suppress(OSError):
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
                try:
                    yield from _walk_in(inner, path / name, uid, depth - 1)
                finally:
                    os.close(inner)
