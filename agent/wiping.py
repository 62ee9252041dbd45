"""Removes what is at a path, whatever it is: never through a link, never what is mounted there, however deep it goes.

Everything is named relative to open directories, so that nobody can put a link in the place of one meanwhile. What lies
deep in a tree is brought up to its top before it is removed: no path is then too long, and no tree too deep.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

UNMOUNT_S = 10.0
_MOUNTS = Path("/proc/self/mountinfo")
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
_HANDLE = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def wipe(path: Path) -> None:
    """Removes a file, a link, or a directory with all that is in it; what is not there is no error.

    Raises:
        OSError: something of it is left; says what.
    """
    try:
        parent = os.open(path.parent, _HANDLE | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        wipe_in(parent, path)
    finally:
        os.close(parent)


def wipe_in(parent: int, path: Path) -> None:
    """The same; ``parent`` is the open directory in which the path's last part is looked for.

    Raises:
        OSError: as above.
    """
    _unmount_within(path)
    try:
        if not _is_directory(parent, path.name):
            _unlink(parent, path.name)
            return
        with _opened(parent, path.name) as top:
            _empty(top)
        _loosened(parent, path.name, lambda: os.rmdir(path.name, dir_fd=parent))
    except FileNotFoundError:
        return


def _empty(top: int) -> None:
    kept: dict[str, OSError] = {}
    while names := [name for name in os.listdir(top) if name not in kept]:
        for name in names:
            try:
                _take_away(top, name)
            except OSError as exc:
                kept[name] = exc
    for name, first in kept.items():
        raise OSError(first.errno, first.strerror, name)


def _take_away(top: int, name: str) -> None:
    """Removes an entry; of a directory, what lies in its own directories is left at the top."""
    if not _is_directory(top, name):
        _unlink(top, name)
        return
    with _opened(top, name) as inner:
        for each in os.listdir(inner):  # noqa: PTH208 - of an open directory
            if _is_directory(inner, each):
                # What is moved must be writable itself: its ``..`` changes.
                with _opened(inner, each):
                    _rename(inner, each, top)
            else:
                _unlink(inner, each)
    _loosened(top, name, lambda: os.rmdir(name, dir_fd=top))


def _rename(inner: int, name: str, top: int) -> None:
    os.rename(name, f"up-{secrets.token_hex(8)}", src_dir_fd=inner, dst_dir_fd=top)


def _unlink(parent: int, name: str) -> None:
    _loosened(parent, name, lambda: os.unlink(name, dir_fd=parent))


def _is_directory(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


@contextmanager
def _opened(parent: int, name: str) -> Iterator[int]:
    """A directory, made readable and writable for its owner first: it is about to go."""
    handle = os.open(name, _HANDLE | os.O_DIRECTORY, dir_fd=parent)
    try:
        through = f"/proc/self/fd/{handle}"
        _unprotect(through)
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            Path(through).chmod(0o700)
        directory = os.open(through, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(handle)
    try:
        yield directory
    finally:
        os.close(directory)


def _loosened(parent: int, name: str, remove: Callable[[], object]) -> None:
    """Removes; where the file's own attributes forbid it, once more without them."""
    try:
        remove()
    except PermissionError:
        handle = os.open(name, _HANDLE, dir_fd=parent)
        try:
            found = os.fstat(handle)
            # One with another name may be somebody else's as well: its attributes are not ours to change.
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                _unprotect(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        remove()


def _unprotect(path: str) -> None:
    """Takes away the attributes that only root can set, and that forbid even root to remove."""
    if os.geteuid() != 0:
        return
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = struct.unpack("I", fcntl.ioctl(file, _GET_FLAGS, b"\0" * 8)[:4])[0]
            if flags & (_IMMUTABLE | _APPEND_ONLY):
                fcntl.ioctl(file, _SET_FLAGS, struct.pack("Q", flags & ~(_IMMUTABLE | _APPEND_ONLY)))
        finally:
            os.close(file)


def _unmount_within(path: Path) -> None:
    """Detaches what is mounted at a path or below it: what is in there may be anybody's.

    Raises:
        OSError: it stays mounted.
    """
    for mount in reversed(_list_mounts(path)):
        if os.geteuid() == 0:
            subprocess.run(["umount", "--lazy", "--", mount], capture_output=True, timeout=UNMOUNT_S, check=False)
    if mounts := _list_mounts(path):
        raise OSError(errno.EBUSY, "a file system is mounted there", mounts[0])


def _list_mounts(path: Path) -> list[str]:
    where = str(path.parent.resolve() / path.name)
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except FileNotFoundError:
        return []
    points = (re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), line.split(" ")[4]) for line in lines)
    return [point for point in points if point == where or point.startswith(where + os.sep)]
