"""How tests share the machine, though several run side by side.

Those marked ``alone`` have it to themselves, since their deadlines are people's: by a lock that many share and one may
have for itself, on two files that are there anyway. Whoever waits to be alone holds the gate, so that no further test
begins meanwhile. Files with a test marked ``patient`` mostly wait: they are spread over most of a run, so
that while one of them waits, another worker has the machine. Some way after them come those with a test marked
``alone``, when no other test takes long: so nobody stands idle for long until it may begin.
"""

from __future__ import annotations

import fcntl
import gc
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest

# Other files after each patient one: about as many as pass while that one waits.
MEANWHILE = 16
GATE, ROOM = Path(__file__).with_name("__init__.py"), Path(__file__)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    patient, alone = _files_with("patient", items), _files_with("alone", items)
    files = dict.fromkeys(item.path for item in items)
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


def _files_with(mark: str, items: list[pytest.Item]) -> set[Path]:
    return {item.path for item in items if item.get_closest_marker(mark)}


# The outermost: what a test waits here is none of its own time.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None):
    with _locked(GATE, fcntl.LOCK_EX) as gate, _locked(ROOM, _wanted(item)):
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)


def _wanted(item: pytest.Item) -> int:
    return fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH


@contextmanager
def _locked(path: Path, how: int) -> Iterator[int]:
    with path.open("rb") as file:
        fcntl.flock(file, how)
        yield file.fileno()
