"""Cleaning as an order to an agent: its script, its deadline, its container, and an agent that dies in the middle."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent import leftovers
from agent.cleaning import Cleaning
from agent.client import Client
from agent.commands import CommandFailed, execute
from agent.config import Config
from agent.program import BrokenOff
from agent.session import Session, find_session, list_sessions
from agent.store import Store
from agent.terminals import Terminals
from tests.agent.tiny_server import TinyServer
from tests.harness.waiting import until

NOWHERE = "http://127.0.0.1:1"


class Desk:
    """An agent's own parts without its process: sessions are prepared and cleaned by calls."""

    def __init__(self, home: Path) -> None:
        self.store = Store(home)
        self.config = Config(NOWHERE, "gpu-01", home, "boot-1", None, None, None, None, None)
        self.lines: list[tuple[str, str]] = []
        self.steps: list[str] = []
        self.stopping = threading.Event()

    @property
    def cleaning(self) -> Cleaning:
        terminals = Terminals(self.store, NOWHERE, self.config.container)
        return Cleaning(self.config, self.store, terminals, lambda *line: self.lines.append(line), self.stopping)

    def sit_down(self, claim_id: int = 9) -> Session:
        execute(
            self.store,
            "gpu-01",
            "prepare_session",
            {"claim_id": claim_id},
            terminals=Terminals(self.store, NOWHERE, None),
        )
        self.cleaning.note(claim_id)
        session = find_session(self.store, claim_id, "gpu-01")
        assert session is not None
        return session

    def clean(self, claim_id: int = 9, **payload: Any) -> tuple[str, ...]:
        return self.cleaning.run({"claim_id": claim_id, **payload}, Client(NOWHERE, ""), self.steps.append)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield Desk(tmp_path / "home")
    leftovers.main(["remove", str(tmp_path / "home")])


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Writes the cleaning script."""

    def write(text: str) -> Path:
        (tmp_path / "cleaning.sh").write_text(text)
        return tmp_path / "cleaning.sh"

    return write


def test_a_session_is_removed_with_all_that_runs_in_it_and_a_second_time_is_no_error(desk: Desk) -> None:
    session = desk.sit_down()
    (session.home / "work.txt").write_text("of the session")
    own = subprocess.Popen(["sleep", "4350"], env=session.environment(), cwd=session.home, **session.identity())
    other = subprocess.Popen(["sleep", "4351"])
    try:
        verified = desk.clean()
        assert verified[:2] == ("processes", "home and temporary files")
        assert desk.steps == [
            "The processes of the session are ended.",
            "The files of the session are removed.",
            "The machine is searched for what is left.",
        ]
        assert own.wait(5) != 0
        assert other.poll() is None
        assert not session.directory.exists()
        assert list_sessions(desk.store) == []
        assert desk.clean() == verified[:2]
    finally:
        other.kill()
        other.wait()


def test_the_script_runs_between_the_end_of_the_processes_and_that_of_the_files(desk: Desk, script) -> None:
    desk.config = replace(
        desk.config, cleaning_script=script("cat $LABLINK_SESSION_HOME/result; echo by $(id -un) in $PWD; sleep 4352 &")
    )
    session = desk.sit_down()
    (session.home / "result").write_text("42\n")
    assert "the cleaning script's success" in desk.clean()
    assert desk.lines[0] == ("cleaning", "42")
    assert desk.lines[1][1].endswith(f"in {desk.store.home}")
    assert not [each for each in psutil.process_iter(["cmdline"]) if "4352" in (each.info["cmdline"] or ())]


@pytest.mark.parametrize(
    ("text", "deadline_s", "said"),
    [
        ("echo no space; exit 3", 60, "the cleaning script ended with exit status 3"),
        ("trap '' TERM; sleep 600 & wait; wait", 0.4, "the cleaning script did not end within 0 s"),
        (None, 60, "does not exist"),
    ],
)
def test_a_script_that_does_not_succeed_leaves_the_machine_unclean_and_is_run_again(
    desk: Desk, script, text: str | None, deadline_s: float, said: str
) -> None:
    path = script(text or "")
    if text is None:
        path.unlink()
    desk.config = replace(desk.config, cleaning_script=path)
    desk.sit_down()
    with pytest.raises(CommandFailed, match=said):
        desk.clean(deadline_s=deadline_s)
    assert list_sessions(desk.store) == [9]
    script("exit 0")
    assert "the cleaning script's success" in desk.clean()
    assert list_sessions(desk.store) == []


def test_an_agent_that_ends_in_the_middle_does_not_call_the_machine_unclean(desk: Desk, script) -> None:
    desk.config = replace(desk.config, cleaning_script=script("sleep 600"))
    desk.sit_down()
    desk.stopping.set()
    with pytest.raises(BrokenOff):
        desk.clean()
    assert list_sessions(desk.store) == [9]


@pytest.mark.parametrize("ends", ["SIGKILL", "SIGTERM"])
async def test_cleaning_goes_on_after_its_agent_was_ended_in_the_middle(
    server: TinyServer, make_agent, tmp_path: Path, script, ends: str
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    path = script(f"echo $$ >> {begun}; while ! [ -e {gate} ]; do sleep 0.05; done")
    agent = make_agent(LABLINK_CLEANING_SCRIPT_FILE=str(path)).start()
    server.command(1, "prepare_session", claim_id=3)
    await until(lambda: server.results(1), every_s=0.01)
    session = find_session(Store(agent.home), 3, "gpu-01")
    assert session is not None
    (session.home / "work.txt").write_text("of the session")
    server.command(2, "end_session", claim_id=3)
    await until(lambda: begun.exists() and begun.read_text().count("\n") == 1, every_s=0.01)
    # Beside it the agent hears what else it is told, but it does not leave in the middle.
    server.command(3, "dance")
    await until(lambda: server.results(3), every_s=0.01)
    if ends == "SIGKILL":
        agent.kill()
    else:
        assert await agent.stop() == 0
    assert [each["status"] for each in server.results(2)] == ["running"] * len(server.results(2))
    assert session.home.exists()

    agent.start()
    await until(lambda: begun.read_text().count("\n") == 2, every_s=0.01)
    first, second = map(int, begun.read_text().split())
    # The script of the former life runs no more beside the one of this.
    await until(lambda: not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE)
    assert psutil.pid_exists(second)
    server.command(4, "stop")
    server.command(5, "dance")
    await until(lambda: server.results(5), every_s=0.01)
    assert server.results(4) == []
    gate.touch()
    assert await agent.ended(20) == 0
    last = server.results(2)[-1]
    assert (last["status"], last["detail"]) == ("succeeded", "the session was removed")
    assert last["data"]["verified"].startswith("processes, home and temporary files")
    assert server.results(4)[0]["status"] == "succeeded"
    assert not session.directory.exists()
    assert list_sessions(Store(agent.home)) == []


DOCKER = """\
#!/bin/bash
# An imitation of docker: containers are directories with files of their own, one volume each, and a number.
cd {root}
case "$1 $2" in
    "volume inspect") [ -d "volumes/${{@: -1}}" ] && echo "${{@: -1}}"; exit ;;
esac
name=${{@: -1}}
case $1 in
    inspect)
        [ -d "containers/$name" ] || exit 1
        case $3 in
            *.Id*) cat "containers/$name/identity" ;;
            *) echo "running $(cat "containers/$name/image")" ;;
        esac ;;
    run)
        image=$name; name=$(sed 's/.*--name \\([^ ]*\\) .*/\\1/' <<<"$*")
        label=$(sed -n 's/.*--label lablink.agent=\\([^ ]*\\) .*/\\1/p' <<<"$*")
        number=$(($(cat count 2>/dev/null || echo 0) + 1)); echo $number >count
        mkdir -p "containers/$name/files" "volumes/v$number"
        echo "$image" >"containers/$name/image"; echo "id$number|$label|v$number" >"containers/$name/identity" ;;
    rm)
        volume=$(cut -d'|' -f3 "containers/$name/identity"); rm -r "containers/$name"
        [[ "$*" == *--volumes* && ! -e keeps-volumes ]] && rm -r "volumes/$volume"
        true ;;
    pull) [ ! -e no-network ] ;;
    *) exit 64 ;;
esac
"""


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, desk: Desk) -> Path:
    """Where the imitation keeps what it has; the desk works in a container of an image, with a repository."""
    root = tmp_path / "docker"
    (root / "programs").mkdir(parents=True)
    program = root / "programs" / "docker"
    program.write_text(DOCKER.format(root=root))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'programs'}{os.pathsep}{os.environ['PATH']}")
    work = tmp_path / "repository"
    work.mkdir()
    (work / "hello.txt").write_text("hello")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=T", "-c", "user.email=t@x", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", *words], cwd=work, check=True)
    desk.config = replace(desk.config, image="lab/desk:1", container="desk", repository=f"file://{work}")
    return root


def boot(desk: Desk) -> None:
    from agent.workload import prepare

    prepare(desk.config, lambda *line: desk.lines.append(line), desk.stopping, lambda step: None)


def test_the_next_person_gets_a_new_container_new_volumes_and_a_fresh_clone(
    desk: Desk, containers: Path, tmp_path: Path
) -> None:
    startup = tmp_path / "startup.sh"
    startup.write_text("echo the startup script ran in $LABLINK_CONTAINER")
    desk.config = replace(desk.config, startup_script=startup)
    boot(desk)
    desk.sit_down()
    left = [containers / "containers/desk/files/secret", containers / "volumes/v1/secret"]
    workload = desk.store.home / "workload"
    left += [workload / "secret", workload / ".git/hooks/post-checkout"]
    for path in left:
        path.write_text("of the former")
    (workload / "hello.txt").write_text("changed")
    assert desk.clean()[-2:] == ("a new container", "volumes of the former one")
    assert not any(path.exists() for path in left)
    assert not (containers / "volumes/v1").exists()
    assert (workload / "hello.txt").read_text() == "hello"
    assert [said for source, said in desk.lines if source == "startup"] == ["the startup script ran in desk"] * 2
    assert "The container is made anew from its image." in desk.steps
    # What never was a session costs nobody a container.
    before = (containers / "count").read_text()
    desk.clean()
    assert (containers / "count").read_text() == before


def test_cleaning_that_was_cut_off_between_two_containers_goes_on(desk: Desk, containers: Path) -> None:
    boot(desk)
    desk.sit_down()
    (containers / "no-network").touch()
    subprocess.run(["docker", "rm", "--force", "--volumes", "desk"], check=True)
    with pytest.raises(CommandFailed, match="the pull of the image ended with exit status 1"):
        desk.clean()
    (containers / "no-network").unlink()
    desk.clean()
    assert (containers / "containers/desk/identity").read_text().startswith("id2|")


def test_a_volume_that_stays_is_named(desk: Desk, containers: Path) -> None:
    boot(desk)
    desk.sit_down()
    (containers / "keeps-volumes").touch()
    with pytest.raises(CommandFailed, match="volumes of the session's container are left: v1"):
        desk.clean()
    assert list_sessions(desk.store) == [9]


def test_a_container_that_is_not_the_agents_own_is_not_touched_and_not_taken_for_clean(
    desk: Desk, containers: Path, script
) -> None:
    subprocess.run(["docker", "run", "--name", "desk", "lab/desk:1"], check=True)
    desk.config = replace(desk.config, repository=None)
    desk.sit_down()
    # As of a session that began under an agent that did not record its container.
    (desk.store.home / "sessions" / "9" / "container").unlink()
    with pytest.raises(CommandFailed, match="the container desk was not made by this agent"):
        desk.clean()
    assert (containers / "containers/desk/identity").read_text().startswith("id1|")
    # Its owner's script can make it anew.
    anew = script("docker rm --volumes --force $LABLINK_CONTAINER; docker run --name $LABLINK_CONTAINER lab/desk:1")
    desk.config = replace(desk.config, cleaning_script=anew)
    desk.clean()
    assert (containers / "containers/desk/identity").read_text().startswith("id2|")


async def test_a_container_that_is_away_for_its_cleaning_makes_no_machine_unfit(
    server: TinyServer, make_agent, containers: Path, script, tmp_path: Path
) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "gate"
    wait = f"touch {begun}; while ! [ -e {gate} ]; do sleep 0.05; done"
    path = script(f"docker rm --volumes --force desk; {wait}; docker run --name desk x")
    subprocess.run(["docker", "run", "--name", "desk", "x"], check=True)
    make_agent().start("--container", "desk", "--cleaning-script", str(path))
    server.command(1, "prepare_session", claim_id=3)
    await until(lambda: server.results(1) and server.beats()[-1]["container"], every_s=0.01)
    server.command(2, "end_session", claim_id=3)
    await until(begun.exists, every_s=0.01)
    first = len(server.beats())
    await until(lambda: len(server.beats()) > first + 2, every_s=0.01)
    gate.touch()
    await until(lambda: server.results(2)[-1]["status"] == "succeeded", every_s=0.01)
    seen = [beat["container"] for beat in server.beats()[first + 1 : first + 3]]
    assert seen == [None, None]
    await until(lambda: (server.beats()[-1]["container"] or {}).get("state") == "running", every_s=0.01)


async def test_the_server_says_which_script_cleans_where_the_agent_shall_ask_it(server: TinyServer, make_agent) -> None:
    agent = make_agent().start("--prepare-as-server-says")
    server.command(1, "prepare_session", claim_id=3)
    await until(lambda: server.results(1), every_s=0.01)
    # As it is now, not as it was when the machine booted.
    server.preparation["cleaning_script"] = "#!/bin/sh\r\necho swept by $0\r\n"
    server.command(2, "end_session", claim_id=3)
    await until(lambda: "swept by " + str(agent.home / "cleaning.sh") in server.logs()["cleaning"], every_s=0.01)
    await until(lambda: server.results(2)[-1]["status"] == "succeeded", every_s=0.01)
