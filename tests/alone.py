"""Tests marked ``alone`` have the machine to themselves, though others run side by side: their deadlines are people's.

A lock that many share and one may have for itself, on two files that are there anyway. Whoever waits to be alone holds
the gate, so that no further test begins meanwhile.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

GATE, ROOM = Path(__file__).with_name("__init__.py"), Path(__file__)


@pytest.hookimpl(wrapper=True)
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
