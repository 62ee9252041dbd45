"""What a server says of itself: that it is late, that it hears nothing, that its disk is full."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.db.notices import NoticeListener
from backend.settings import Settings
from backend.tasks import server_watch
from backend.tasks.server_watch import DEAF_AFTER_S, LATE_TIMES, WINDOW_S, ServerWatch


class Listener(NoticeListener):
    """One whose connection is lost and found by hand."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere")

    def lose(self) -> None:
        self.connected = True
        self._lost()

    def find(self) -> None:
        for gap in self._on_gap:
            gap()


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The monotonic clock, moved by hand."""
    moment = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    return moment


@pytest.fixture
def disk(monkeypatch) -> list[float]:
    """How much of the disk is free, in %."""
    free = [50.0]
    monkeypatch.setattr(server_watch.shutil, "disk_usage", lambda _: SimpleNamespace(total=100.0, free=free[0]))
    return free


def subjects(watch: ServerWatch) -> list[str]:
    return [seen.subject for seen in watch.look()]


def test_a_server_that_is_late_once_is_not_ill_and_one_that_often_is_says_so_for_a_minute(tmp_path, now, disk) -> None:
    watch = ServerWatch(Listener(), Settings(home=tmp_path))
    for _ in range(LATE_TIMES - 1):
        watch.record_lag(5.0)
    assert subjects(watch) == []
    watch.record_lag(1.1)
    assert [seen.sentence.partition(" is ")[2] for seen in watch.look()] == [
        "slow: it was late by 1.1 s several times in a minute."
    ]
    now[0] += WINDOW_S + 1
    assert subjects(watch) == []


async def test_a_loop_that_is_held_up_is_measured(tmp_path: Path, monkeypatch, disk) -> None:
    monkeypatch.setattr(server_watch, "EVERY_S", 0.01)
    watch = ServerWatch(Listener(), Settings(home=tmp_path))
    measuring = asyncio.create_task(watch.measure())
    while watch.lag_s < 0.05:
        await asyncio.sleep(0)
        time.sleep(0.1)
    measuring.cancel()


def test_a_server_that_hears_nothing_for_half_a_minute_says_so_until_it_hears_again(tmp_path, now, disk) -> None:
    listener = Listener()
    watch = ServerWatch(listener, Settings(home=tmp_path))
    listener.lose()
    assert subjects(watch) == []
    now[0] += DEAF_AFTER_S
    assert subjects(watch) == ["listener"]
    listener.find()
    assert subjects(watch) == []


def test_a_disk_that_is_nearly_full_is_told_until_it_has_some_more_room(tmp_path, disk) -> None:
    watch = ServerWatch(Listener(), Settings(home=tmp_path))
    said = []
    for disk[0] in (10.5, 9.9, 10.5, 4.0, 12.1, 10.5):
        said.append([str(seen.severity) for seen in watch.look()])
    assert said == [[], ["warning"], ["warning"], ["critical"], [], []]
