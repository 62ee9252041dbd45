"""The check of a session for a rehearsal: as its user, in its home, with a deadline; what was said comes along."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent import leftovers
from agent.checks import check_session
from agent.commands import CommandFailed
from agent.config import Config
from agent.program import BrokenOff
from agent.session import prepare_session
from agent.store import Store


class Desk:
    """An agent's parts, with one session."""

    def __init__(self, home: Path) -> None:
        self.config = Config("http://127.0.0.1:1", "gpu-01", home, "boot-1", None, None, None, None, None)
        self.store, self.stopping = Store(home), threading.Event()
        self.session = prepare_session(self.store, 9, "gpu-01")

    def check(self, command: str = "", **payload: Any) -> tuple[str, dict[str, Any]]:
        asked = {"claim_id": 9, "command": command, **payload}
        return check_session(
            self.config, self.store, asked, self.stopping, lambda line: line.replace("hush", "[secret]")
        )


@pytest.fixture
def desk(tmp_path: Path):
    yield Desk(tmp_path / "home")
    leftovers.main(["remove", str(tmp_path / "home")])


def test_a_check_runs_as_its_people_do_and_tells_its_status_and_last_lines(desk: Desk) -> None:
    said, data = desk.check("echo $(id -un) in $PWD at $HOSTNAME; seq 30; echo hush >&2; exit 3")
    assert said == "the check command ended with exit status 3"
    assert data["exit_status"] == 3
    assert data["lines"] == [*map(str, range(12, 31)), "[secret]"]
    user = desk.session.user or desk.session.environment()["USER"]
    _, data = desk.check("echo $(id -un) in $PWD at $HOSTNAME")
    assert data == {"exit_status": 0, "lines": [f"{user} in {desk.session.home} at gpu-01"]}


def test_a_check_is_ended_at_its_deadline_with_all_that_it_started(desk: Desk) -> None:
    said, data = desk.check("echo begun; sleep 4360 & wait", deadline_s=0.3)
    assert said == "the check command was ended at its deadline"
    assert data == {"exit_status": None, "lines": ["begun"]}
    assert not [each for each in psutil.process_iter(["cmdline"]) if "4360" in (each.info["cmdline"] or ())]


def test_what_cannot_be_checked_is_said(desk: Desk, tmp_path: Path) -> None:
    for payload, words in (({"claim_id": 8}, "not there"), ({"command": " "}, "empty"), ({"command": 4}, "empty")):
        with pytest.raises(CommandFailed, match=words):
            desk.check(**{"command": "true", **payload})
    desk.stopping.set()
    with pytest.raises(BrokenOff):
        desk.check("sleep 4361")


def test_whether_a_remote_desktop_could_be_had_is_seen_without_a_code(desk: Desk, tmp_path: Path) -> None:
    desk.config = replace(desk.config, crd_start_host=tmp_path / "start-host")
    with pytest.raises(CommandFailed, match="not installed"):
        desk.check(what="crd")
    for name in ("start-host", "chrome-remote-desktop"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    assert desk.check(what="crd") == ("Chrome Remote Desktop is installed", {})
