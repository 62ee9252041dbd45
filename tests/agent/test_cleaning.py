"""Cleaning between two people: nothing of the one is left for the other, and nothing of anybody else's is touched.

Where the tests run as root, sessions have users of their own, as they have on a machine; what concerns sessions without
one is tried as well, by having the agent believe that it can make none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent import removal, strays
from agent.removal import end_session, list_leftovers, list_own
from agent.session import Session, SessionError, list_sessions, prepare_session
from agent.store import Store
from agent.strays import list_segments
from agent.users import find_uid
from agent.wiping import wipe
from tests.harness.waiting import until

IS_ROOT = os.geteuid() == 0
MARKER = f"marker-{secrets.token_hex(8)}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "agent")
    yield found
    for claim_id in list_sessions(found):
        with contextlib.suppress(SessionError):
            end_session(found, claim_id, "gpu-01")


@pytest.fixture
def without_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is not root, as far as it knows."""
    monkeypatch.setattr("agent.session.can_make_users", lambda: False)


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The spools of a machine with cron, at and mail, which the machine of the tests need not have."""
    # Not under the tests' own directory, which is closed to others.
    root = Path(tempfile.mkdtemp(prefix="lablink-spools-"))
    root.chmod(0o755)
    spools = [root / name for name in ("mail", "cron", "crontabs", "atjobs", "linger", "open")]
    for spool in spools:
        spool.mkdir()
        spool.chmod(0o1777)
    monkeypatch.setattr(strays, "SHARED_PLACES", (*strays.SHARED_PLACES, *map(str, spools)))
    monkeypatch.setattr(strays, "NAMED_PLACES", (*strays.NAMED_PLACES, *map(str, spools)))
    yield root
    shutil.rmtree(root)


def run_in(session: Session, script: str, **environment: str) -> subprocess.Popen[bytes]:
    """Has a session's user do something; returns at once."""
    return subprocess.Popen(
        ["/bin/bash", "-c", script],
        env={**session.environment(), **environment},
        cwd=session.home,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        **session.identity(),
    )


def do_in(session: Session, script: str, **environment: str) -> None:
    """Has a session's user do something to its end."""
    assert run_in(session, script, **environment).wait(30) == 0


def uid_of(session: Session) -> int:
    return find_uid(session.user) if session.user else os.getuid()  # type: ignore[return-value]


def is_gone(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


EVERYTHING = f"""set -e
echo {MARKER} > ~/.bash_history; echo {MARKER} > $TMPDIR/scratch; mkdir -p ~/.config/chrome-remote-desktop
echo {MARKER} > ~/.config/chrome-remote-desktop/host#1.json; mkdir -p ~/.mozilla; echo {MARKER} > ~/.mozilla/cookies
"""
# What only a user of one's own may leave, since of it alone the agent knows whose it is.
EVERYWHERE = f"""
for place in /tmp /var/tmp /dev/shm $SPOOLS/open; do
    mkdir -p $place/{MARKER}/a; echo {MARKER} > $place/{MARKER}/a/b
done
mkdir -p -m 777 $SPOOLS/open/{MARKER}/c
for spool in mail crontabs atjobs; do echo "* * * * * {MARKER}" > $SPOOLS/$spool/$USER; done
ipcmk -M 64 -Q -S 1 >/dev/null
"""


def list_traces(*own: Path) -> list[str]:
    """Where a marker is found: in files, in names of files where all may write, in processes and their environments."""
    grep = ["grep", "--recursive", "--files-with-matches", "--no-messages", "--devices=skip", MARKER]
    shared = [place for place in strays.SHARED_PLACES if Path(place).is_dir()]
    find = ["find", *shared, *map(str, own), "-maxdepth", "4", "-name", f"*{MARKER}*"]
    found = []
    for command in ([*grep, *map(str, own)], find):
        found += subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if MARKER in f"{process.cmdline()} {process.environ()}":
                found.append(f"process {process.pid}")
    return found


async def test_the_next_person_at_a_machine_finds_nothing_of_the_former(store: Store, places: Path) -> None:
    ada = prepare_session(store, 1, "gpu-01")
    do_in(ada, EVERYTHING + (EVERYWHERE if IS_ROOT else ""), SPOOLS=str(places))
    for script in ("sleep 600", "setsid nohup sleep 601 & disown", "(setsid sh -c 'sleep 602 & sleep 603' &)"):
        run_in(ada, script, MINE=MARKER)
    uid = uid_of(ada)
    least = 18 if IS_ROOT else 9
    await until(lambda: len(list_traces(store.home, places, ada.directory)) >= least, what="all of it is there")
    end_session(store, 1, "gpu-01")
    bob = prepare_session(store, 2, "gpu-01")
    try:
        assert list_traces(store.home, places, ada.directory.parent) == []
        # Nor by what the next person sees with own eyes.
        found = subprocess.run(
            ["/bin/bash", "-c", f"env | cat - ~/.* $TMPDIR/* 2>/dev/null; ls -aR ~ $TMPDIR; ps -efww; : {MARKER[:7]}"],
            env=bob.environment(),
            cwd=bob.home,
            capture_output=True,
            text=True,
            check=True,
            **bob.identity(),
        )
        assert MARKER not in found.stdout
        if IS_ROOT:
            assert bob.user != ada.user
            assert list_segments(uid) == []
            assert find_uid(ada.user or "") is None
    finally:
        end_session(store, 2, "gpu-01")


@pytest.mark.parametrize("has_user", [True, False])
async def test_no_process_of_a_session_outlives_it_however_it_was_begun(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_user: bool
) -> None:
    monkeypatch.setattr(removal, "END_GRACE_S", 1.0)
    if not has_user:
        monkeypatch.setattr("agent.session.can_make_users", lambda: False)
    session = prepare_session(store, 3, "gpu-01")
    scripts = {
        "plain": "sleep 4340",
        "deaf": "trap '' TERM HUP INT; touch ~/deaf; while :; do sleep 0.2; done",
        "nohup, in a session of its own": "setsid nohup sleep 4340 >/dev/null 2>&1 &",
        "twice removed": "(setsid sh -c 'setsid sleep 4340 & sleep 4340' &) ; exec sleep 4340",
        "one that makes others without end": "touch ~/forks; while :; do sleep 4340 & sleep 0.05; done",
        "under another name": "cp $(command -v sleep) ~/-rf; exec ~/-rf 4340",
        "a child that forgot where it comes from": "env -i sleep 4340 & exec sleep 4340",
    }
    started = [run_in(session, script) for script in scripts.values()]
    if session.user:
        # As cron would: nobody's child here, with nothing of the session's environment.
        jobs = subprocess.Popen(
            ["/bin/sh", "-c", "setsid sleep 4340 & exec sleep 4340"],
            env={},
            start_new_session=True,
            **session.identity(),
        )
        started.append(jobs)
    await until(lambda: (session.home / "deaf").exists() and (session.home / "forks").exists(), every_s=0.02)
    await until(lambda: len(list_own(session)) > 9, every_s=0.02)
    end_session(store, 3, "gpu-01")
    assert [each for each in psutil.process_iter(["cmdline", "status"]) if _is_sleep(each)] == []
    assert all(
        process.wait(5) != 0 for process in started if process.args[2] != scripts["nohup, in a session of its own"]
    )


def _is_sleep(process: psutil.Process) -> bool:
    return "4340" in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE


def make_awkward(directory: Path) -> None:
    """Files of the kinds that are hard to remove."""
    for name in ("-rf", "with\nlines", "--", "ünï\u202ecode", "* ?", "a" * 255):
        (directory / name).write_text("x")
    os.close(os.open(os.fsencode(directory) + b"/not-\xff-text", os.O_CREAT))
    os.mkfifo(directory / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(directory, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    (directory / "closed").mkdir()
    (directory / "closed" / "inside").mkdir()
    (directory / "closed" / "inside" / "file").write_text("x")
    (directory / "closed" / "inside").chmod(0)
    (directory / "closed").chmod(0)
    deep = os.open(directory, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("deeper", dir_fd=deep)
        below = os.open("deeper", os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
    os.close(deep)


def test_awkward_files_go_and_what_they_point_to_stays(store: Store, tmp_path: Path) -> None:
    session = prepare_session(store, 4, "gpu-01")
    others = tmp_path / "others"
    others.mkdir()
    (others / "notes.txt").write_text("not yours")
    make_awkward(session.home)
    for number, target in enumerate((others, others / "notes.txt", tmp_path, Path("nowhere"))):
        (session.home / f"link{number}").symlink_to(target)
    os.link(others / "notes.txt", session.home / "hard")
    if IS_ROOT:
        for name in ("kept", "grows"):
            (session.home / name).mkdir()
            (session.home / name / "file").write_text("x")
        subprocess.run(["chattr", "-R", "+i", str(session.home / "kept")], check=True)
        subprocess.run(["chattr", "-R", "+a", str(session.home / "grows")], check=True)
    if uid := find_uid(session.user or ""):
        for path in (session.home, *session.home.iterdir()):
            with contextlib.suppress(PermissionError):
                os.chown(path, uid, uid, follow_symlinks=False) if path.name != "hard" else None
    end_session(store, 4, "gpu-01")
    assert not session.directory.exists()
    assert (others / "notes.txt").read_text() == "not yours"
    assert (others / "notes.txt").stat().st_nlink == 1


def test_a_home_that_became_a_link_leads_nowhere(store: Store, tmp_path: Path, without_users: None) -> None:
    session = prepare_session(store, 5, "gpu-01")
    others = tmp_path / "others"
    (others / "home").mkdir(parents=True)
    (others / "home" / "notes.txt").write_text("not yours")
    wipe(session.directory)
    session.directory.symlink_to(others)
    with contextlib.suppress(SessionError):
        end_session(store, 5, "gpu-01")
    assert (others / "home" / "notes.txt").read_text() == "not yours"
    session.directory.unlink()


@pytest.mark.parametrize("has_user", [True, False])
def test_nothing_of_whoever_runs_the_agent_is_touched(
    store: Store, tmp_path: Path, places: Path, monkeypatch: pytest.MonkeyPatch, has_user: bool
) -> None:
    if not has_user:
        monkeypatch.setattr("agent.session.can_make_users", lambda: False)
    crontab = stand_in(monkeypatch, tmp_path, "crontab", f'[ "$1" = -l ] && cat {tmp_path}/jobs')
    home = tmp_path / "home-of-the-user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    name = f"lablink-planted-{secrets.token_hex(4)}"
    planted = [home / ".bash_history", tmp_path / "jobs", places / "crontabs" / "root", places / "open" / "mine"]
    planted += [Path(place) / name for place in ("/tmp", "/var/tmp", "/dev/shm")]
    bystander = subprocess.Popen(["sleep", "4341"], cwd=home, start_new_session=True)
    try:
        for path in planted:
            path.write_text("of the user")
        before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in planted]
        session = prepare_session(store, 6, "gpu-01")
        for number, path in enumerate((home, *planted)):
            (session.home / f"link{number}").symlink_to(path)
            (session.tmp / f"link{number}").symlink_to(path)
        do_in(session, EVERYTHING)
        end_session(store, 6, "gpu-01")
        assert [path.read_text() for path in planted] == ["of the user"] * len(planted)
        assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in planted] == before
        assert bystander.poll() is None
        assert crontab.calls() in ([], ["-l", "-l"])
    finally:
        bystander.kill()
        bystander.wait()
        for path in planted:
            path.unlink(missing_ok=True)


def test_a_job_left_in_the_crontab_of_the_agents_own_user_is_named_and_not_touched(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_users: None
) -> None:
    stand_in(monkeypatch, tmp_path, "crontab", f'[ "$1" = -l ] && cat {tmp_path}/jobs')
    (tmp_path / "jobs").write_text("0 0 * * * backup\n")
    prepare_session(store, 7, "gpu-01")
    (tmp_path / "jobs").write_text("0 0 * * * backup\n* * * * * of-the-session\n")
    with pytest.raises(SessionError, match=r"a change in the crontab of .*, made during the session"):
        end_session(store, 7, "gpu-01")
    assert "of-the-session" in (tmp_path / "jobs").read_text()
    # Once somebody has looked after it, the machine is clean.
    (tmp_path / "jobs").write_text("0 0 * * * backup\n")
    end_session(store, 7, "gpu-01")
    assert list_sessions(store) == []


async def test_a_process_that_hides_its_marks_is_not_ended_unseen_but_named_where_it_works_in_the_directory(
    store: Store, without_users: None
) -> None:
    session = prepare_session(store, 10, "gpu-01")
    run_in(session, "env -i setsid sleep 4343 & echo $! > ~/pid").wait(10)
    hidden = psutil.Process(int((session.home / "pid").read_text()))
    await until(lambda: hidden.name() == "sleep", every_s=0.01)
    try:
        with pytest.raises(SessionError, match=rf"the process {hidden.pid} \(sleep\), which works in the session's"):
            end_session(store, 10, "gpu-01")
        assert hidden.is_running()
    finally:
        hidden.kill()
    await until(lambda: is_gone(hidden.pid), every_s=0.01)
    end_session(store, 10, "gpu-01")


def test_what_is_left_is_named_and_found_again(store: Store, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = prepare_session(store, 8, "gpu-01")
    assert session.home.is_dir()
    uid = uid_of(session)
    (places / "open" / "a\nb").write_text("x")
    os.chown(places / "open" / "a\nb", uid, -1)
    process = run_in(session, "exec sleep 4342")
    said = list_leftovers(store, session)
    assert f"the process {process.pid} (sleep)" in said or f"the process {process.pid} (bash)" in said
    assert f"the files in {session.directory}" in said[1] or f"the files in {session.home}" in said[1]
    assert (f"the file {places}/open/a\nb" in said) is IS_ROOT
    monkeypatch.setattr(removal, "wipe_files", lambda session: None)
    with pytest.raises(SessionError, match=r"something of the session is left: the files in /") as refusal:
        end_session(store, 8, "gpu-01")
    assert "\n" not in str(refusal.value)
    # Nothing of what the agent knows of it is forgotten before it is clean.
    assert list_sessions(store) == [8]
    assert prepare_session(store, 8, "gpu-01").user == session.user
    process.wait(5)


def test_a_file_system_mounted_in_a_home_is_let_go_with_all_that_is_in_it(store: Store, tmp_path: Path) -> None:
    session = prepare_session(store, 9, "gpu-01")
    others = tmp_path / "others"
    others.mkdir()
    (others / "notes.txt").write_text("not yours")
    (session.home / "mounted here").mkdir()
    done = subprocess.run(
        ["mount", "--bind", str(others), str(session.home / "mounted here")], capture_output=True, check=False
    )
    assert (done.returncode == 0) is IS_ROOT
    end_session(store, 9, "gpu-01")
    assert (others / "notes.txt").read_text() == "not yours"
    assert not session.home.exists()


class StandIn:
    """A program of the test's on the PATH; it keeps what it was called with."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def stand_in(monkeypatch: pytest.MonkeyPatch, directory: Path, name: str, script: str) -> StandIn:
    programs = directory / "programs"
    programs.mkdir(exist_ok=True)
    (programs / name).write_text(f'#!/bin/sh\necho "$@" >> {directory}/{name}.log\n{script}\n')
    (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return StandIn(directory / f"{name}.log")
