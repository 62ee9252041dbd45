"""What the machine looks like right now: GPU, CPU, memory, disk, container."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from agent.container import DockerAway, look_at_container

# A few percent of a large disk are still plenty: both figures must be low.
LOW_DISK_PCT, LOW_DISK_BYTES = 10.0, 10 * 2**30
NO_DISK_PCT, NO_DISK_BYTES = 2.0, 2**30
FULL_MEMORY_PCT = 97.0
HOT_C = 90.0
# What the server takes in one heartbeat.
MAX_REASONS, MAX_REASON = 20, 500
_ORDER = ("healthy", "degraded", "unhealthy")


@dataclass
class Report:
    """One look at the machine. Percentages from 0 to 100."""

    cpu_pct: float
    memory_pct: float
    disk_free_pct: float
    gpus: list[dict[str, Any]] = field(default_factory=list)
    health: str = "healthy"
    reasons: list[str] = field(default_factory=list)

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
        self._gpus = _Gpus()
        psutil.cpu_percent()  # the first call has nothing to compare with

    def examine(self, *, is_prepared: bool = True) -> Report:
        """Takes a fresh look; at the container only once it should be there."""
        disk = psutil.disk_usage(str(self._home))
        report = Report(
            cpu_pct=psutil.cpu_percent(),
            memory_pct=psutil.virtual_memory().percent,
            disk_free_pct=round(100.0 - disk.percent, 1),
        )
        if report.disk_free_pct < LOW_DISK_PCT and disk.free < LOW_DISK_BYTES:
            is_full = report.disk_free_pct < NO_DISK_PCT and disk.free < NO_DISK_BYTES
            report.add("unhealthy" if is_full else "degraded", f"only {report.disk_free_pct:.0f} % of the disk is free")
        if report.memory_pct >= FULL_MEMORY_PCT:
            report.add("degraded", f"{report.memory_pct:.0f} % of the memory is in use")
        self._gpus.add_to(report)
        if self._container and is_prepared:
            _check_container(self._container, report)
        return report


class _Gpus:
    """NVML, loaded only where there is a driver."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._count = 0

    def add_to(self, report: Report) -> None:
        if self._nvml is None:
            # Each time anew: the driver may be loaded after us.
            self._load()
        for index in range(self._count):
            try:
                gpu = self._read(index)
            except Exception as exc:
                report.add("unhealthy", f"GPU {index} does not answer: {exc}")
                continue
            report.gpus.append(gpu)
            if (gpu["temperature_c"] or 0) >= HOT_C:
                report.add("degraded", f"GPU {index} is at {gpu['temperature_c']} °C")

    def _load(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
            self._count = pynvml.nvmlDeviceGetCount()
            self._nvml = pynvml
        except Exception:  # noqa: S110 - no driver, no library, no GPU: all the same fact
            pass

    def _read(self, index: int) -> dict[str, Any]:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "index": index,
            "name": _text(nvml.nvmlDeviceGetName(handle)),
            "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
            "utilisation_pct": _maybe(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            "memory_used_mb": round(memory.used / 2**20, 1),
            "memory_total_mb": round(memory.total / 2**20, 1),
            "temperature_c": _maybe(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        }


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _maybe(read: Any) -> float | None:
    try:
        return float(read())
    except Exception:
        return None


def _check_container(name: str, report: Report) -> None:
    try:
        container = look_at_container(name)
    except DockerAway as exc:
        report.add("unhealthy", f"the container {name} cannot be checked: {exc}")
        return
    if container is None or not container.is_running:
        report.add("unhealthy", f"the container {name} is {container.state if container else 'not there'}")
