"""A shell on a pty: what is kept, what is held, how it ends; and that a session leaves nothing anywhere."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import psutil
import pytest

from agent import leftovers, shell
from agent.removal import end_session
from agent.session import find_session, list_sessions, prepare_session
from agent.shell import KEPT, WINDOW, Shell
from agent.store import Store
from agent.terminals import Terminals
from tests.harness.waiting import until


@pytest.fixture
def start(tmp_path: Path):
    """Starts shells without a session around them."""
    shells: list[Shell] = []

    def one(*argv: str) -> Shell:
        environment = {"PATH": os.environ["PATH"], "PS1": "> "}
        shells.append(Shell(argv or ("/bin/sh",), environment=environment, directory=tmp_path, identity={}))
        return shells[-1]

    yield one
    for each in shells:
        each.hang_up()


def take_all(one: Shell, offset: int = 0) -> tuple[bytes, int]:
    """All that is there now."""
    whole = b""
    while True:
        start, content = one.take(offset, wait_s=0)
        if not content:
            return whole, offset
        whole, offset = whole + content, start + len(content)


async def until_shown(one: Shell, words: bytes) -> None:
    await until(lambda: words in take_all(one)[0], every_s=0.01, what=str(words))


async def test_it_has_a_terminal_of_its_own_and_ends_with_its_status(start) -> None:
    one = start()
    one.resize(90, 20)
    one.type(b"tty; stty size; exit 7\n")
    await until(lambda: one.is_over, every_s=0.01)
    assert b"/dev/pts/" in take_all(one)[0]
    assert b"20 90" in take_all(one)[0]
    assert one.status == 7


async def test_what_writes_without_end_is_held_until_somebody_has_seen_it(start) -> None:
    one = start("yes")
    await until(lambda: take_all(one)[1] >= WINDOW, every_s=0.01)
    seen = take_all(one)[1]
    assert seen < KEPT
    one.acknowledge(seen)
    await until(lambda: take_all(one, seen)[1] >= seen + WINDOW, every_s=0.01)
    # More than there is was never seen.
    one.acknowledge(10**12)
    await until(lambda: take_all(one)[1] > seen + 2 * WINDOW - 1, every_s=0.01)


async def test_when_nobody_has_looked_for_long_it_flows_and_the_newest_output_is_kept(start, monkeypatch) -> None:
    monkeypatch.setattr(shell, "PATIENCE_S", 0.0)
    one = start("seq", "200000")
    await until(lambda: one.is_over, every_s=0.01)
    first, content = one.take(0, wait_s=0)
    assert first > 0
    whole, last = take_all(one)
    assert len(whole) == KEPT
    assert last - first == KEPT
    assert whole.endswith(b"199999\r\n200000\r\n")
    assert content == whole[: len(content)]


async def test_typing_into_one_that_reads_nothing_blocks_neither_its_size_nor_its_end(start) -> None:
    one = start("sleep", "4324")
    one.type(b"x" * 2_000_000)
    one.resize(10, 10)
    one.hang_up()
    await until(lambda: one.is_over, every_s=0.01)
    assert one.status == 128 + 1


async def test_one_that_ignores_the_hang_up_is_killed(start, monkeypatch) -> None:
    monkeypatch.setattr(shell, "END_GRACE_S", 0.2)
    one = start("/bin/sh", "-c", "trap '' HUP; echo ready; while :; do sleep 0.05; done")
    await until_shown(one, b"ready")
    one.hang_up()
    assert one.status == 128 + 9 or await until(lambda: one.status == 128 + 9)


def test_what_cannot_be_started_is_an_error_and_leaves_no_descriptor(start, tmp_path: Path) -> None:
    before = psutil.Process().num_fds()
    with pytest.raises(OSError, match="nowhere"):
        Shell(("/bin/sh",), environment={}, directory=tmp_path / "nowhere", identity={})
    assert psutil.Process().num_fds() == before


async def test_in_a_container_the_shell_is_run_by_docker_exec_and_found_again_at_the_end(
    tmp_path: Path, monkeypatch
) -> None:
    # An imitation of docker: it has no container, but runs what it is told with what it is given.
    imitation = tmp_path / "docker"
    imitation.write_text(
        '#!/bin/sh\necho "$@"\nshift 3\nwhile [ "$1" = --env ]; do export "$2"; shift 2; done\nshift\nexec "$@"\n'
    )
    imitation.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    store = Store(tmp_path / "home")
    session = prepare_session(store, 5, "gpu-05")
    terminals = Terminals(store, "http://127.0.0.1:1", "workload")
    one = terminals._start(session)
    assert terminals.isolation(session) == "container"
    await until_shown(one, b"exec --interactive --tty --env LANG=")
    one.type(b"nohup sleep 4325 >/dev/null 2>&1 & echo at $!\n")
    await until_shown(one, b"\nat ")
    one.hang_up()
    end_session(store, 5, "gpu-05")
    assert not [each for each in psutil.process_iter(["cmdline"]) if "4325" in (each.info["cmdline"] or ())]


def test_after_a_crash_whatever_is_left_of_sessions_is_found_and_removed(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    sessions = [prepare_session(store, number, "gpu-01") for number in (1, 2)]
    one = sessions[0]
    own = subprocess.Popen(["sleep", "4326"], env=one.environment(), cwd=one.home, **one.identity())
    # As a new process would, which knows only what is on the disk.
    assert leftovers.main(["end", str(store.home)]) == 0
    assert own.wait(5) != 0
    assert [find_session(store, number, "gpu-01") for number in (1, 2)] == sessions
    assert leftovers.main(["remove", str(store.home)]) == 0
    assert list_sessions(store) == []
    assert not any(session.directory.exists() for session in sessions)
    assert not {session.user for session in sessions} & {each.pw_name for each in pwd.getpwall()}


def test_a_session_prepared_again_keeps_its_user_and_what_its_owner_made_of_its_files(tmp_path: Path) -> None:
    store = Store(tmp_path / "home")
    first = prepare_session(store, 3, "gpu-01")
    try:
        (first.home / ".bashrc").write_text("mine")
        (first.home / ".profile").unlink()
        # Whoever links a file of ours to another's must not have us write there.
        (first.home / ".profile").symlink_to(tmp_path / "elsewhere")
        assert prepare_session(store, 3, "gpu-01") == first
        assert (first.home / ".bashrc").read_text() == "mine"
        assert not (tmp_path / "elsewhere").exists()
    finally:
        end_session(store, 3, "gpu-01")
