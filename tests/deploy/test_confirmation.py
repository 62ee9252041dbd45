"""What `lablink deploy` asks before it changes anything, and what it refuses."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from backend.errors import Conflict
from backend.provisioning.deployment import Change
from lablink_ui.cli import parse
from lablink_ui.deploy_cli import _ACTS


class Planned:
    """Stands in for what is deployed: its plan is given, and whatever is done to it is kept."""

    def __init__(self, *changes: Change) -> None:
        self.changes, self.done = list(changes), []

    async def plan(self) -> list[Change]:
        return self.changes

    async def plan_destroy(self, *, with_backups: bool) -> list[Change]:
        return self.changes

    async def apply(self) -> dict[str, Any]:
        self.done.append("apply")
        return {}

    async def destroy(self, *, with_backups: bool) -> None:
        self.done.append("destroy")


@pytest.mark.parametrize("verb", ["apply", "destroy"])
@pytest.mark.parametrize("given", [["--confirm", "tset"], ["--confirm", ""], []])
async def test_another_word_than_the_one_asked_for_changes_nothing(
    verb: str, given: list[str], capsys, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("tset\n"))
    planned = Planned(Change("+", "aws_instance.server"))
    assert await _ACTS[verb](parse(["deploy", verb, "test", *given]), planned) == 1
    assert "Nothing was changed." in capsys.readouterr().out
    assert planned.done == []


@pytest.mark.parametrize(("verb", "word"), [("apply", "test"), ("destroy", "destroy test")])
async def test_the_very_word_or_a_pipelines_yes_lets_it_go_on(verb: str, word: str, monkeypatch) -> None:
    for given, typed in ((["--confirm", word], ""), ([], f"{word}\n"), (["--yes"], "")):
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        planned = Planned(Change("+", "aws_instance.server"))
        assert await _ACTS[verb](parse(["deploy", verb, "test", *given]), planned) == 0
        assert planned.done == [verb]


async def test_no_apply_makes_anew_what_holds_data_unless_it_is_told_to() -> None:
    planned = Planned(Change("-/+", "aws_instance.server"))
    with pytest.raises(Conflict, match="--allow-loss"):
        await _ACTS["apply"](parse(["deploy", "apply", "test", "--yes"]), planned)
    assert planned.done == []
    assert await _ACTS["apply"](parse(["deploy", "apply", "test", "--yes", "--allow-loss"]), planned) == 0
    assert planned.done == ["apply"]
