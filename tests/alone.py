"""How tests share the machine, though several run side by side.

Those marked ``alone`` have it to themselves, since their deadlines are people's: by a lock that many share and one may
have for itself, on two files that are there anyway. Whoever waits to be alone holds the gate, so that no further test
begins meanwhile. Those marked ``patient`` mostly wait, for minutes: they begin first.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

GATE, ROOM = Path(__file__).with_name("__init__.py"), Path(__file__)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    patient = {item.path for item in items if item.get_closest_marker("patient")}
    items.sort(key=lambda item: item.path not in patient)


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
