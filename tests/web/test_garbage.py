"""Full collections of garbage hold everybody up: they wait for a quiet moment, but not for ever."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from lablink_ui import garbage
from tests.harness.waiting import until


class Machine:
    """A clock that goes on by a second at each look, a process that works for a share of it, and its collections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = self.worked_s = self.share = 0.0
        self.made, self.takes_s, self.collected_at = garbage.ENOUGH, 0.0, list[float]()
        self.pages: dict[int, str] = {}
        self._task: asyncio.Task[None] | None = None
        monkeypatch.setattr(garbage, "time", SimpleNamespace(monotonic=self._look, process_time=self._work))
        monkeypatch.setattr(garbage, "gc", SimpleNamespace(get_count=lambda: (self.made, 0, 0), collect=self._collect))
        monkeypatch.setattr(garbage, "Client", SimpleNamespace(instances=self.pages))
        monkeypatch.setattr(garbage, "YOUNG_S", 0.0)
        monkeypatch.setattr(garbage, "ROUNDS", 1)

    def _look(self) -> float:
        return self.now_s

    def _work(self) -> float:
        return self.worked_s

    def _collect(self, generation: int = 2) -> None:
        if generation == 0:
            return
        self.now_s += self.takes_s
        self.collected_at.append(self.now_s)

    async def live(self, seconds: int) -> None:
        """Some time goes by."""
        self._task = self._task or asyncio.create_task(garbage.collect_when_quiet())
        for _ in range(seconds):
            self.now_s += 1
            self.worked_s += self.share
            await asyncio.sleep(0)

    async def end(self) -> None:
        """Nothing is collected any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(monkeypatch)
    yield made
    await made.end()


async def test_while_a_class_arrives_nothing_is_collected_and_as_soon_as_it_sits_it_is(machine: Machine) -> None:
    machine.share = 0.6
    await machine.live(90)
    assert machine.collected_at == []
    machine.share = 0.05
    await machine.live(3)
    assert len(machine.collected_at) == 1


async def test_where_it_is_never_quiet_it_is_collected_all_the_same(machine: Machine) -> None:
    machine.share = 0.9
    await machine.live(int(2 * garbage.LATEST_S) + 10)
    assert len(machine.collected_at) == 2


@pytest.mark.parametrize("share", [0.9, 0.05], ids=["never quiet", "quiet"])
async def test_one_that_takes_seconds_comes_the_more_rarely(machine: Machine, share: float) -> None:
    machine.share, machine.takes_s = share, 3.0
    await machine.live(int(garbage.LATEST_S) + 2)
    assert len(machine.collected_at) == 1
    fair_s = int(machine.takes_s / garbage.MOST_SHARE)
    await machine.live(fair_s - 100)
    assert len(machine.collected_at) == 1
    await machine.live(110)
    assert len(machine.collected_at) == 2


async def test_among_a_thousand_pages_already_the_first_one_waits(machine: Machine) -> None:
    machine.share = 0.05
    machine.pages |= dict.fromkeys(range(1_000), "")
    await machine.live(2_900)
    assert machine.collected_at == []
    await machine.live(110)
    assert len(machine.collected_at) == 1


async def test_a_class_that_comes_after_a_night_is_not_held_up_by_what_the_night_did_not_need(machine: Machine) -> None:
    machine.made = 0
    await machine.live(8 * 3_600)
    machine.made, machine.share = garbage.ENOUGH, 0.6
    await machine.live(90)
    assert machine.collected_at == []


async def test_where_little_was_made_there_is_nothing_to_collect(machine: Machine) -> None:
    machine.made = garbage.ENOUGH // 600
    await machine.live(500)
    assert machine.collected_at == []
    await machine.live(110)
    assert len(machine.collected_at) == 1


class Circle:
    """Refers to itself."""

    def __init__(self) -> None:
        self.itself = self


async def test_what_is_new_and_refers_to_itself_goes_soon_and_what_stays_is_looked_through_once() -> None:
    pauses: list[tuple[int, int]] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            pauses.append((info["generation"], len(gc.get_objects(info["generation"]))))

    gc.collect()
    gc.disable()
    gc.callbacks.append(note)
    task = asyncio.create_task(garbage.collect_when_quiet())
    try:
        gone, stays = weakref.ref(Circle()), [Circle() for _ in range(20_000)]
        await until(lambda: gone() is None, what="it is collected")
        await until(lambda: len(pauses) >= 3, what="there were more rounds")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gc.callbacks.remove(note)
        gc.enable()
    assert {generation for generation, _ in pauses} == {0}
    assert pauses[0][1] >= len(stays)
    assert all(looked_through < len(stays) / 4 for _, looked_through in pauses[1:])


async def test_what_a_crowd_left_free_between_what_stays_is_given_back_in_a_quiet_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(garbage, "REST_S", 0.01)
    monkeypatch.setattr(garbage, "QUIET_SHARE", 100.0)
    crowd = [bytearray(4_000) for _ in range(20_000)]
    last_of_it = [bytearray(4_000) for _ in range(20_000)]
    # Above them all: what lies below is not given back by itself.
    stays = bytearray(4_000)
    task = asyncio.create_task(garbage.give_back_when_quiet())
    await _see_given_back(crowd)
    # They leave later, and leaving is little work.
    await _see_given_back(last_of_it)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert stays


async def _see_given_back(crowd: list[bytearray]) -> None:
    held = psutil.Process().memory_info().rss
    crowd.clear()
    await until(lambda: psutil.Process().memory_info().rss < held - 40_000_000, what="most of 80 MB is given back")
