"""How tests share the machine, though several run side by side.

A part of a test whose deadlines are people's has it to itself (``alone``): by a lock that many share and one may have
for itself, on two files that are there anyway. Whoever waits to be alone holds the gate, so that no further test begins
meanwhile. Files with a test marked ``patient`` mostly wait: they are spread over most of a run, so that while one of
them waits, another worker has the machine. Some way after them come those with a test that wants to be alone, when no
other takes long: so nobody stands idle for long until it may be. What needs the one server that many files share comes
late: until then it need not run.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from itertools import islice
from pathlib import Path

import pytest

# Other files after each patient one: about as many as pass while that one waits.
MEANWHILE = 16
GATE, ROOM = Path(__file__).with_name("__init__.py"), Path(__file__)
Alone = Callable[[], AbstractAsyncContextManager[None]]
_PLACE = pytest.StashKey[int]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    patient = {item.path for item in items if item.get_closest_marker("patient")}
    alone, sharing = _files_that_use("alone", items), _files_that_use("shared_server", items)
    files = sorted(dict.fromkeys(item.path for item in items), key=lambda path: path in sharing)
    others = iter([path for path in files if path not in patient | alone])
    spread = [path for one in files if one in patient for path in (one, *islice(others, MEANWHILE))]
    rest = list(others)
    half = len(rest) // 2
    order = [*spread, *rest[:half], *(path for path in files if path in alone - patient), *rest[half:]]
    place = {path: at for at, path in enumerate(order)}
    items.sort(key=lambda item: place[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is there after it stays to the end: no collection of garbage needs to look at it again and again."""
    gc.disable()
    result = yield
    gc.freeze()
    gc.enable()
    return result


def _files_that_use(fixture: str, items: list[pytest.Item]) -> set[Path]:
    return {item.path for item in items if fixture in getattr(item, "fixturenames", ())}


# The outermost: what a test waits here is none of its own time.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None):
    with _locked(GATE, fcntl.LOCK_EX) as gate, _locked(ROOM, fcntl.LOCK_SH) as item.stash[_PLACE]:
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Alone:
    """What is done within it, is done on a machine that does nothing else."""
    place = request.node.stash[_PLACE]

    @asynccontextmanager
    async def be_alone() -> AsyncIterator[None]:
        # Another may want the same: who only waits is in nobody's way.
        fcntl.flock(place, fcntl.LOCK_UN)
        with GATE.open("rb") as gate:
            await asyncio.to_thread(fcntl.flock, gate, fcntl.LOCK_EX)
            await asyncio.to_thread(fcntl.flock, place, fcntl.LOCK_EX)
        try:
            yield
        finally:
            await asyncio.to_thread(fcntl.flock, place, fcntl.LOCK_SH)

    return be_alone


@contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    with path.open("rb") as file:
        fcntl.flock(file, how)
        yield file.fileno()
