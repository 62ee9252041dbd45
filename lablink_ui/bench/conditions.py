"""Under which conditions is measured: how much of everything, on which cores, of what machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything; the defaults are those of the published figures."""

    machines: int = 500
    claims_at_once: int = 50
    raw_claims: int = 5_000
    few_machines: int = 200
    beat_connections: int = 32
    beat_s: float = 3.0
    beat_rounds: int = 2
    rows: int = 500
    open_pages: int = 200
    changes: int = 300
    changes_per_s: tuple[float, ...] = (10.0, 50.0)
    launched: tuple[int, ...] = (20, 100)
    first_visits: int = 3
    arrivals: str = "150 in 1 min"
    arrivals_pages: int = 20
    terminals: int = 100
    keys: int = 20
    key_pause_s: float = 0.25
    crowd: int = 2_000
    polls: int = 500
    polled_claims: int = 200
    rest_s: float = 20.0
    aws_pools: tuple[int, int] = (10, 200)
    cores_for_two: int = 4


@dataclass(frozen=True, slots=True)
class Cores:
    """The server (with its Postgres) has cores of its own, the load has the others; one core is shared."""

    server: frozenset[int]
    load: frozenset[int]

    @property
    def all(self) -> frozenset[int]:
        """Every core that we may use."""
        return self.server | self.load

    def __str__(self) -> str:
        if not self.all:
            return "cores are not pinned on this system: server and load disturb each other"
        if self.server == self.load:
            return "one core for server and load together: they disturb each other"
        return f"server and its Postgres on core {_listed(self.server)}, load on core {_listed(self.load)}"


def find_cores() -> Cores:
    """Shares out the cores that we may use."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(frozenset(), frozenset())
    first, *others = sorted(os.sched_getaffinity(0))
    return Cores(frozenset({first}), frozenset(others or {first}))


@contextmanager
def pinned_to(cores: frozenset[int]) -> Iterator[None]:
    """Within the block this thread runs on these cores alone, and so does for ever what it starts there."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def describe_machine() -> dict[str, str]:
    """What the figures were taken on."""
    return {
        "cpu": _cpu_model(),
        "cores": str(os.cpu_count() or 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _listed(cores: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(cores)))
