from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from agent.config import Config
from agent.workload import PreparationFailed, Step, prepare, restart
from tests.agent.tiny_server import ENROLMENT_TOKEN, TinyServer
from tests.harness.waiting import until

Lines = list[tuple[str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """A git repository with one file, on this machine."""
    work = tmp_path / "repository"
    work.mkdir()
    (work / "hello.txt").write_text("hello")
    identity = ["-c", "user.name=Test", "-c", "user.email=test@lab.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=work, check=True)
    return f"file://{work}"


def config(home: Path, *, script: Path | None = None, repository: str | None = None, deadline_s: float = 20) -> Config:
    return Config("http://127.0.0.1:1", "gpu-01", home, "boot-1", None, None, script, repository, None, deadline_s)


def ignore(step: Step) -> None:
    """Nobody listens."""


def script_of(tmp_path: Path, text: str) -> Path:
    script = tmp_path / "startup.sh"
    script.write_text(text)
    return script


def is_running(pid: str) -> bool:
    """Whether a process lives; one that only waits for its burial does not."""
    try:
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(config: Config, stopping: threading.Event | None = None) -> Lines:
    lines: Lines = []
    prepare(config, lambda source, line: lines.append((source, line)), stopping or threading.Event(), ignore)
    return lines


async def test_a_startup_script_runs_before_the_machine_is_ready_and_its_output_is_shipped(
    server: TinyServer, make_agent, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = script_of(tmp_path, f"echo begins; env | grep LABLINK; read go < {gate}; echo over >&2")
    make_agent(LABLINK_STARTUP_SCRIPT_FILE=str(script)).start()
    await until(lambda: any(beat["phase"] == "preparing" for beat in server.beats()), every_s=0.01)
    gate.write_text("go\n")
    await until(lambda: server.beats()[-1]["phase"] == "ready", every_s=0.01)
    await until(lambda: "over" in server.logs()["startup"], every_s=0.01)
    lines = server.logs()["startup"]
    assert lines[0] == "begins"
    assert not any(ENROLMENT_TOKEN in line or "ENROLMENT" in line or "[secret]" in line for line in lines)


async def test_a_startup_script_that_fails_makes_the_machine_unfit_and_says_why(
    server: TinyServer, make_agent, tmp_path: Path
) -> None:
    script = script_of(tmp_path, "echo the disk is missing; exit 3")
    agent = make_agent().start("--startup-script", str(script))
    await until(lambda: server.beats() and server.beats()[-1]["health"] == "unhealthy", every_s=0.01)
    assert server.beats()[-1]["reasons"] == ["the startup script ended with exit status 3"]
    assert not any(beat["phase"] == "ready" for beat in server.beats())
    assert await agent.stop() == 0
    assert server.logs()["startup"] == ["the disk is missing"]


async def test_stopping_the_agent_ends_what_its_preparation_runs(
    server: TinyServer, make_agent, tmp_path: Path
) -> None:
    noted = tmp_path / "pid"
    script = script_of(tmp_path, f"sleep 600 & echo $! > {noted}.new; mv {noted}.new {noted}; wait")
    agent = make_agent().start("--startup-script", str(script))
    await until(noted.exists, every_s=0.01)
    assert await agent.stop() == 0
    await until(lambda: not is_running(noted.read_text()), every_s=0.01)
    assert server.beats()[-1]["reasons"] == []


async def test_a_startup_script_that_takes_too_long_is_ended(tmp_path: Path, home: Path) -> None:
    script = script_of(tmp_path, "trap '' TERM; sleep 600 & echo $!; wait; wait")
    lines: Lines = []
    with pytest.raises(PreparationFailed, match="the startup script did not end within 0 s"):
        prepare(
            config(home, script=script, deadline_s=0.3),
            lambda *line: lines.append(line),
            threading.Event(),
            ignore,
        )
    await until(lambda: not is_running(lines[0][1]), every_s=0.01)


def test_what_a_startup_script_leaves_running_does_not_hold_it_up(tmp_path: Path, home: Path) -> None:
    script = script_of(tmp_path, "sleep 600 & echo $!")
    ((_, pid),) = run(config(home, script=script))
    assert is_running(pid)
    psutil.Process(int(pid)).kill()


@pytest.mark.parametrize(
    ("mode", "text", "says"),
    [
        (None, "", r"the startup script .*startup\.sh does not exist"),
        (0o755, "echo no interpreter is named", "the startup script could not be started: Exec format error"),
        (0o755, "#!/nonexistent/shell\n", "the startup script could not be started: No such file"),
        (0o644, "exit 1", "the startup script ended with exit status 1"),
        (0o644, "kill -9 $$", "the startup script ended with exit status -9"),
    ],
)
def test_a_startup_script_that_cannot_run_is_a_reason_and_no_crash(
    tmp_path: Path, home: Path, mode: int | None, text: str, says: str
) -> None:
    script = tmp_path / "startup.sh"
    if mode is not None:
        script.write_text(text)
        script.chmod(mode)
    with pytest.raises(PreparationFailed, match=says):
        run(config(home, script=script))


def test_a_repository_is_cloned_once(home: Path, repository: str) -> None:
    assert all(source == "repository" for source, _ in run(config(home, repository=repository)))
    assert (home / "workload" / "hello.txt").read_text() == "hello"
    (home / "workload" / "hello.txt").write_text("changed by its user")
    assert run(config(home, repository=repository)) == []
    assert (home / "workload" / "hello.txt").read_text() == "changed by its user"


def test_a_clone_that_was_cut_off_is_not_taken_for_a_whole_one(home: Path, repository: str) -> None:
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(PreparationFailed, match="the clone of the repository was broken off"):
        run(config(home, repository=repository), stopping)
    (home / "workload.new" / ".git").mkdir(parents=True, exist_ok=True)
    run(config(home, repository=repository))
    assert (home / "workload" / "hello.txt").is_file()
    assert not (home / "workload.new").exists()


def test_a_repository_that_cannot_be_cloned_is_a_reason_and_says_what_git_said(home: Path) -> None:
    lines: Lines = []
    with pytest.raises(PreparationFailed, match="the clone of the repository ended with exit status 128"):
        prepare(
            config(home, repository="file:///nonexistent"),
            lambda *line: lines.append(line),
            threading.Event(),
            ignore,
        )
    assert any("nonexistent" in line for _, line in lines)


def test_without_git_a_repository_is_a_reason(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(PreparationFailed, match="git is not installed"):
        run(config(home, repository="file:///nonexistent"))


async def test_the_credentials_of_a_repository_reach_no_log(server: TinyServer, make_agent) -> None:
    address = server.url.replace("http://", "http://someone:p4ssw0rd@")
    agent = make_agent().start("--repository", f"{address}/nothing.git")
    await until(lambda: server.beats() and server.beats()[-1]["health"] == "unhealthy", every_s=0.01)
    assert await agent.stop() == 0
    assert server.logs()["repository"]
    said = str(server.logs()) + str(server.beats())
    assert "p4ssw0rd" not in said
    assert "someone" not in said


def test_a_restart_ends_and_begins_the_container_that_is_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An imitation of docker: a container that runs, and a record of what it was told.
    docker, told = tmp_path / "docker", tmp_path / "told"
    docker.write_text(f'#!/bin/sh\necho "$1 $4" >> {told}\n[ "$1" = inspect ] && echo "running desk:1"; exit 0')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    desk = replace(config(home), image="desk:1", container="desk")
    restart(desk, lambda source, line: None, threading.Event(), ignore)
    assert told.read_text().splitlines() == ["inspect desk", "restart desk", "inspect desk"]
