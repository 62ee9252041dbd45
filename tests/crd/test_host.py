"""The agent's part, with the imitation of Google's programs: judged by facts, told in sentences, gone at the end."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.crd import Crd
from agent.crd_host import CrdError, CrdHost, GivenUp
from agent.removal import end_session
from agent.session import Session, prepare_session
from agent.store import Store
from tests.crd.conftest import Imitation
from tests.harness.imitation_start_host import HOST_ID
from tests.harness.waiting import until

PIN = "04711815"


class Machine:
    """A machine with one session on it."""

    def __init__(self, home: Path, imitation: Imitation) -> None:
        self.store = Store(home)
        self.crd = Crd(self.store, "gpu-01", imitation.start_host)
        self.session: Session = prepare_session(self.store, 7, "gpu-01")
        self.told: list[str] = []

    def start(self, code: str, pin: str = PIN) -> str:
        return self.crd.start({"claim_id": 7, "code": code, "pin": pin}, self.told.append)["host_id"]

    def end(self) -> None:
        with self.crd.ended({"claim_id": 7}):
            end_session(self.store, 7, "gpu-01")

    def registrations(self) -> list[Path]:
        return list((self.session.home / ".config" / "chrome-remote-desktop").glob("host#*.json"))


@pytest.fixture
def machine(tmp_path: Path, imitation: Imitation) -> Iterator[Machine]:
    machine = Machine(tmp_path / "agent", imitation)
    yield machine
    imitation.close()
    machine.end()


def test_a_host_is_registered_started_and_gone_with_its_session(
    machine: Machine, imitation: Imitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABLINK_ENROLMENT_TOKEN", "a secret of the agent")
    assert machine.start("4/0Good_code-1") == HOST_ID
    assert machine.told == [
        "Your machine makes room for the remote desktop.",
        "Your machine registers with Google.",
        "Your machine starts the desktop.",
    ]
    (registration,) = machine.registrations()
    assert registration.name == f"host#{hashlib.md5(socket.gethostname().encode()).hexdigest()}.json"
    content = json.loads(registration.read_text())
    assert content["host_name"] == "gpu-01"
    assert content["host_secret_hash"] == f"hmac:{hashlib.sha256(PIN.encode()).hexdigest()}"
    (host,) = imitation.processes()

    (call,) = imitation.calls()
    assert call["words"] == [
        "--code=4/0Good_code-1",
        "--redirect-url=https://remotedesktop.google.com/_/oauthredirect",
        "--name=gpu-01",
    ]
    assert call["environment"]["DISPLAY"] == ""
    for call in (*imitation.calls(), *imitation.calls("chrome-remote-desktop")):
        assert PIN not in json.dumps(call)
        assert "a secret of the agent" not in json.dumps(call)
        assert not [name for name in call["environment"] if name.startswith("LABLINK_") and name != "LABLINK_SESSION"]

    machine.end()
    assert not host.is_running() or host.status() == "zombie"
    assert not machine.session.directory.exists()
    assert imitation.processes() == []
    assert ["--stop"] in [call["words"] for call in imitation.calls("chrome-remote-desktop")]


def test_a_program_that_fails_though_it_registered_has_succeeded(machine: Machine) -> None:
    assert machine.start("4/0NoSystemd_code") == HOST_ID


@pytest.mark.parametrize(
    ("code", "pin", "said"),
    [
        ("4/0Expired_code", PIN, "used before, or is some minutes old. Get a new one"),
        ("4/0Network_code", PIN, "cannot reach Google"),
        ("4/0Dies_code", PIN, "Starting the desktop ended with status 1 and said: Failed to launch X server"),
        ("4/0", PIN, "did not arrive whole"),
        ("4/0Good code", PIN, "did not arrive whole"),
        ("4/0Good_code;id", PIN, "did not arrive whole"),
        ("4/0Good_code", "12", "did not arrive whole"),
        ("4/0Good_code", "--pin=1", "did not arrive whole"),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_leaves_nothing(
    machine: Machine, imitation: Imitation, code: str, pin: str, said: str
) -> None:
    with pytest.raises(CrdError, match=said.replace(".", r"\.")) as failure:
        machine.start(code, pin)
    assert code not in str(failure.value) or len(code) < 6
    assert machine.registrations() == []
    assert imitation.processes() == []


def test_a_used_code_is_said_and_a_new_one_works_with_the_same_pin(machine: Machine, imitation: Imitation) -> None:
    machine.start("4/0First_code")
    with pytest.raises(CrdError, match="used before"):
        machine.start("4/0First_code")
    assert machine.registrations() == []
    machine.start("4/0Second_code")
    assert len(imitation.processes()) == 1


def test_a_machine_without_the_program_says_so(machine: Machine, imitation: Imitation) -> None:
    imitation.start_host.unlink()
    with pytest.raises(CrdError, match="is not installed on this machine"):
        machine.start("4/0Good_code")
    machine.end()
    assert not machine.session.directory.exists()


def test_a_pin_that_is_not_taken_ends_the_program_that_would_ask_for_ever(
    machine: Machine, imitation: Imitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = imitation.directory / "imitation.py"
    script.write_text(script.read_text().replace("[0-9]{6,}", "[a-z]{6,}"))
    with pytest.raises(CrdError, match="did not take the PIN"):
        machine.start("4/0Good_code")
    assert imitation.processes() == []


def test_a_registration_that_takes_too_long_is_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.crd.REGISTER_S", 0.5)
    with pytest.raises(CrdError, match="took too long"):
        machine.start("4/0Hangs_code")


async def test_a_seat_given_back_in_the_middle_breaks_the_registration_off(
    machine: Machine, imitation: Imitation
) -> None:
    imitation.hold("register")
    failures: list[Exception] = []

    def start() -> None:
        try:
            machine.start("4/0Good_code")
        except CrdError as exc:
            failures.append(exc)

    thread = threading.Thread(target=start)
    thread.start()
    await until(imitation.calls, what="the program asks")
    machine.end()
    thread.join(5)
    assert [type(each) for each in failures] == [GivenUp]
    assert imitation.processes() == []
    assert not machine.session.directory.exists()
    # Nor does one begin that was asked for before and comes late.
    with pytest.raises(GivenUp):
        machine.start("4/0Other_code")


def test_a_host_that_does_not_end_keeps_the_session_from_counting_as_removed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.crd.GONE_S", 2.0)
    machine.start("4/0Stubborn_code")
    with pytest.raises(CrdError, match="does not end"):
        machine.end()
    assert machine.session.directory.exists()
    assert machine.registrations() == []


def test_a_host_that_somebody_started_by_hand_is_unbound_too(machine: Machine, imitation: Imitation) -> None:
    machine.start("4/0Good_code")
    # As if the agent had been started anew since: all it has to go by is what is there.
    machine.crd = Crd(machine.store, "gpu-01", imitation.start_host)
    machine.end()
    assert imitation.processes() == []


def test_a_machine_on_which_the_runtime_directory_cannot_be_made_says_so(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("agent.crd_host.RUNTIME_DIRECTORIES", tmp_path / "file" / "user")
    with pytest.raises(CrdError, match="which Chrome Remote Desktop needs"):
        machine.start("4/0Good_code")


def test_a_session_whose_user_vanished_starts_no_host_says_so_and_can_still_be_ended(
    machine: Machine, imitation: Imitation, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start("4/0First_code")
    (host,) = imitation.processes()
    with monkeypatch.context() as vanished:
        gone = replace(machine.session, user="lab-00000000")
        vanished.setattr("agent.crd.find_session", lambda *_: gone)
        with pytest.raises(CrdError, match=r"lab-00000000, is gone from the machine\. Move to another machine"):
            machine.start("4/0Second_code")
        with machine.crd.ended({"claim_id": 7}):
            assert machine.registrations() == []
    assert not host.is_running() or host.status() == "zombie"


GOOD = ("--code=4/0Good_code", "--redirect-url=https://remotedesktop.google.com/_/oauthredirect", "--name=gpu-01")


@pytest.mark.parametrize(
    ("words", "environment", "status", "said"),
    [
        (GOOD, {}, 0, ""),
        (GOOD, {"USER": "somebody"}, -signal.SIGABRT, "USER and LOGNAME"),
        (GOOD, {"LOGNAME": "somebody"}, -signal.SIGABRT, "USER and LOGNAME"),
        (GOOD, {"HOME": "/nonexistent"}, -signal.SIGABRT, "HOME cannot be written"),
        (("--cod=4/0Good_code", *GOOD[1:]), {}, 1, "You need a web browser"),
        (("--code", "4/0Good_code", *GOOD[1:]), {}, 1, "Usage:"),
        (("--code=4/0Good_code", "--redirect-url=https://evil.example/", GOOD[2]), {}, 1, "OAuth error"),
    ],
)
def test_the_imitation_takes_what_google_s_program_takes_and_dies_where_it_dies(
    imitation: Imitation, machine: Machine, words: tuple[str, ...], environment: dict[str, str], status: int, said: str
) -> None:
    CrdHost(machine.session, imitation.start_host).ensure_runtime_directory()
    user = machine.session.user or pwd.getpwuid(os.getuid()).pw_name
    right = {"PATH": os.environ["PATH"], "HOME": str(machine.session.home), "USER": user, "LOGNAME": user}
    done = subprocess.run(
        [str(imitation.start_host), *words],
        env={**right, **environment},
        **machine.session.identity(),
        input=f"{PIN}\n{PIN}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status
    assert said in done.stdout + done.stderr
    assert len(machine.registrations()) == (status == 0)
