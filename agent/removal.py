"""The removal of a session, in the order in which nothing can come back: its jobs by the clock, its processes, its
files, a look at whether anything is left, and only then what the agent recorded of it.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from agent.crontabs import CRONTAB, find_crontab_state
from agent.session import MARK, Session, SessionError, record_of, session_of
from agent.store import Store
from agent.strays import list_strays, remove_strays
from agent.users import UserError, find_uid, is_zombie, kill_all, list_processes, remove_user
from agent.wiping import wipe

END_GRACE_S, LOOK_S = 5.0, 0.05
# What is named of what is left.
NAMED, NAME_LENGTH = 5, 120
# What the look at the end is for, in words; with a user of its own more can be told apart.
CHECKED = ("processes", "home and temporary files")
CHECKED_OF_USER = ("files of its user elsewhere", "cron and at jobs", "mail", "shared memory", "its user")


def end_session(store: Store, claim_id: int, hostname: str) -> None:
    """Removes a session, and makes sure of it; one that never was is no error.

    Raises:
        SessionError: something of it is left; says what.
    """
    session = session_of(store, claim_id, hostname)
    end_processes(session)
    wipe_files(session)
    verify(store, session)
    forget(store, session)


def end_processes(session: Session, first: Sequence[psutil.Process] = ()) -> None:
    """Ends every process of a session, and ``first``, which are known to be its: politely, then not.

    Raises:
        SessionError: one does not end.
    """
    uid = _uid_of(session)
    if uid is not None and session.user is not None:
        # What is begun by the clock must not begin in the middle.
        remove_strays(uid, session.user)
    for process in (own := {*first, *list_own(session)}):
        with contextlib.suppress(psutil.Error):
            process.terminate()
    end = time.monotonic() + END_GRACE_S
    while (own := {*_living(own), *list_own(session)}) and time.monotonic() < end:
        time.sleep(LOOK_S)
    end = time.monotonic() + END_GRACE_S
    while own:
        if uid is not None:
            kill_all(uid)
        _kill(own)
        own = {*_living(own), *list_own(session)}
        if time.monotonic() > end:
            break
    if own:
        raise SessionError(f"processes of the session do not end: {_named([_said(each) for each in own])}")


def wipe_files(session: Session) -> None:
    """Removes its files, wherever they are.

    Raises:
        SessionError: something cannot be removed.
    """
    uid = _uid_of(session)
    try:
        for path in _places(session):
            wipe(path)
    except OSError as exc:
        what = _clean(str(exc.filename or ""))
        raise SessionError(f"files of the session could not be removed: {what}: {exc.strerror}") from exc
    if uid is not None and session.user is not None:
        remove_strays(uid, session.user)


def verify(store: Store, session: Session) -> tuple[str, ...]:
    """Looks whether anything is left. Returns what was looked for.

    Raises:
        SessionError: something is; says what.
    """
    if left := list_leftovers(store, session):
        raise SessionError(f"something of the session is left: {_named(left)}")
    return (*CHECKED, *(CHECKED_OF_USER if session.user else ()))


def list_leftovers(store: Store, session: Session) -> list[str]:
    """What is left of a session, in words."""
    left = [_said(process) for process in list_own(session)]
    left += [f"the files in {path}" for path in _places(session) if os.path.lexists(path)]
    uid = _uid_of(session)
    if uid is not None and session.user is not None:
        left += list_strays(uid, session.user)
    else:
        left += [f"{_said(process)}, which works in the session's directory" for process in _list_within(session)]
        with contextlib.suppress(FileNotFoundError):
            was = (record_of(store, session.claim_id) / CRONTAB).read_text(encoding="ascii")
            if find_crontab_state() not in (was, None):
                left.append(f"a change in the crontab of {getpass.getuser()}, made during the session")
    return left


def forget(store: Store, session: Session) -> None:
    """Removes its user, and what the agent recorded of it: from here on it never was.

    Raises:
        SessionError: that could not be removed.
    """
    try:
        if session.user is not None:
            remove_user(session.user)
        wipe(record_of(store, session.claim_id))
    except (UserError, OSError) as exc:
        raise SessionError(f"the session's user or record could not be removed: {exc}") from exc


def list_own(session: Session) -> list[psutil.Process]:
    """The living processes of a session: of its user; else those that bear its mark, with all that they began and
    whatever shares a terminal with them.
    """
    uid = _uid_of(session)
    own = set(list_processes(uid)) if uid is not None else set()
    marked = [process for process in _others() if _is_marked(process, session)]
    return [*own, *(process for process in _with_kin(marked) if process not in own)]


def _with_kin(marked: Sequence[psutil.Process]) -> list[psutil.Process]:
    found = {process.pid: process for process in marked}
    sids = {sid for process in marked if (sid := _sid_of(process)) is not None} - {os.getsid(0)}
    kin = list(marked)
    while kin:
        kin = [
            each
            for each in _others()
            if each.pid not in found and (_ppid_of(each) in found or _sid_of(each) in sids) and not is_zombie(each)
        ]
        found.update({each.pid: each for each in kin})
    return list(found.values()) if marked else []


def _others() -> list[psutil.Process]:
    """Every process but this one, zombies too: of these nobody can read an environment or a directory."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid()]


def _is_marked(process: psutil.Process, session: Session) -> bool:
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    return environment.get("HOME") == str(session.home) or environment.get(MARK) == str(session.directory)


def _list_within(session: Session) -> list[psutil.Process]:
    """Those that work in its directory. They may be whoever's who went there to look: not ours to end."""
    found = []
    for process in _others():
        with contextlib.suppress(psutil.Error, OSError):
            # A directory that is gone is told with a word behind its name.
            if Path(process.cwd()).is_relative_to(session.directory):
                found.append(process)
    return found


def _sid_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(OSError):
        return os.getsid(process.pid)
    return None


def _ppid_of(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.Error):
        return process.ppid()
    return None


def _living(processes: set[psutil.Process]) -> set[psutil.Process]:
    living = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            if process.is_running() and not is_zombie(process):
                living.add(process)
    return living


def _kill(processes: set[psutil.Process]) -> None:
    """All are held first, so that none begins another while its neighbour is killed."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.suspend()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def _places(session: Session) -> tuple[Path, ...]:
    """Where its files are. Without a user of its own its directory is the agent's record as well, which goes last."""
    return (session.directory,) if session.user else (session.home, session.tmp)


def _uid_of(session: Session) -> int | None:
    return find_uid(session.user) if session.user else None


def _said(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"the process {process.pid} ({process.name()})"
    return f"the process {process.pid}"


def _named(left: Sequence[str]) -> str:
    more = f" and {len(left) - NAMED} more" if len(left) > NAMED else ""
    return ", ".join(_clean(each) for each in left[:NAMED]) + more


def _clean(said: str) -> str:
    """What others have named, fit for a line of text."""
    return "".join(each if each.isprintable() else "?" for each in said)[:NAME_LENGTH]
