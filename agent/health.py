"""What the machine looks like right now: GPU, CPU, memory, disk, container.

Figures are judged by the server, which knows what the machine's pool allows; a verdict of its own is given here only on
what the machine alone knows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.container import DockerAway, look_at_container
from agent.gpus import Gpus

# What the server takes in one heartbeat.
MAX_REASONS, MAX_REASON = 20, 500
_ORDER = ("healthy", "degraded", "unhealthy")


@dataclass
class Report:
    """One look at the machine. Percentages from 0 to 100."""

    cpu_pct: float
    memory_pct: float
    disk_free_pct: float
    disk_free_gb: float
    gpus: list[dict[str, Any]] = field(default_factory=list)
    health: str = "healthy"
    reasons: list[str] = field(default_factory=list)
    container: dict[str, str] | None = None

    def add(self, health: str, reason: str) -> None:
        """Adds a reason; the worst verdict stands."""
        self.health = max(self.health, health, key=_ORDER.index)
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append(reason[:MAX_REASON])


class Examiner:
    """Looks at the machine. Without a GPU there is nothing to say about one: that is a fact, not an error."""

    def __init__(self, home: Path, container: str | None) -> None:
        self._home = home
        self._container = container
        self._gpus = Gpus()
        psutil.cpu_percent()  # the first call has nothing to compare with

    def examine(self, *, is_prepared: bool = True) -> Report:
        """Takes a fresh look; at the container only once it should be there."""
        disk = psutil.disk_usage(str(self._home))
        report = Report(
            cpu_pct=psutil.cpu_percent(),
            memory_pct=psutil.virtual_memory().percent,
            disk_free_pct=round(100.0 - disk.percent, 1),
            disk_free_gb=round(disk.free / 2**30, 2),
            gpus=self._gpus.read(),
        )
        if self._container and is_prepared:
            _check_container(self._container, report)
        return report


def _check_container(name: str, report: Report) -> None:
    try:
        container = look_at_container(name)
    except DockerAway as exc:
        report.add("unhealthy", f"the container {name} cannot be checked: {exc}")
        return
    report.container = {"name": name, "state": container.state if container else "not there"}
