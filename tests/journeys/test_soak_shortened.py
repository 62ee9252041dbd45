"""What `make soak` plays for minutes, for seconds: the same rounds of the same seed, and a smaller crowd."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak.__main__ import main
from tests.soak.gpus import GPUS
from tests.soak.hour import Look, list_grown
from tests.soak.memory import Memory
from tests.soak.rounds import Scenario, play_round
from tests.soak.storm import play as play_storm

pytestmark = pytest.mark.patient
SEED = 1
LOOK = Look(memory_mb=400, connections=14, descriptors=38, tasks=80, claim_ms=40, machine_shown_ms=200)


async def test_a_gpu_that_breaks_as_nvml_tells_of_it_is_off_the_offer_and_mended_up_the_ladder() -> None:
    await play_round(GPUS, SEED, 2)


async def test_a_crowd_at_every_door_gets_each_seat_once_and_in_order() -> None:
    small = functools.partial(play_storm, people=45, machines=30)
    await play_round(Scenario("storm", 1, "a small crowd", small), SEED, 1)


def test_an_hour_sees_what_grows_and_not_what_only_warms_up_or_wavers() -> None:
    steady = [replace(LOOK, memory_mb=memory) for memory in (300, 350, *[400, 404] * 7)]
    assert list_grown(steady) == []
    leaking = [replace(LOOK, memory_mb=400 + 4 * number, tasks=80 + number) for number in range(16)]
    assert list_grown(leaking) == ["memory_mb grew from 422.0 to 454.0", "tasks grew from 85.5 to 93.5"]


def test_a_soak_goes_on_where_it_was_ended_and_says_how_to_play_a_violation_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    played, broken = [], {3}

    async def play(game) -> None:
        played.append((game.number, game.luck.random()))
        assert game.number not in broken, "water is dry"

    monkeypatch.setattr("tests.soak.__main__.SCENARIOS", {"dice": Scenario("dice", 4, "a game", play)})
    monkeypatch.setattr("tests.soak.__main__.Memory", lambda: Memory(tmp_path / "passed.json"))
    monkeypatch.setattr("tests.soak.rounds.ARTIFACTS", tmp_path)
    assert main(["dice", "--seed", "7"]) == 1
    said = capsys.readouterr().out
    assert "VIOLATION: water is dry" in said
    assert 'make soak ARGS="dice --seed 7 --round 3"' in said

    broken.clear()
    assert main(["dice", "--seed", "7"]) == 0
    assert [number for number, _ in played] == [1, 2, 3, 3, 4]
    # The luck of a round is its own: the one that failed is the one that is played again.
    assert played[2] == played[3]
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("soak dice: 4 rounds passed, seed 7, commit ")
    assert main(["dice", "--seed", "8"]) == 0
    assert len(played) == 9
    assert played[5][1] != played[0][1]
