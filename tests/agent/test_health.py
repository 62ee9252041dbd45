from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from agent.health import MAX_REASON, MAX_REASONS, Examiner, Report

GIB = 2**30


@pytest.fixture(autouse=True)
def plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with room and without a GPU, whatever this one is like."""
    disk_is(monkeypatch, free_pct=50, of=100 * GIB)
    memory_is(monkeypatch, 30)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def disk_is(monkeypatch: pytest.MonkeyPatch, *, free_pct: float, of: int) -> None:
    free = int(of * free_pct / 100)
    monkeypatch.setattr(psutil, "disk_usage", lambda _: SimpleNamespace(free=free, percent=100 - free_pct))


def memory_is(monkeypatch: pytest.MonkeyPatch, pct: float) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(percent=pct))


def examine(container: str | None = None) -> Report:
    return Examiner(Path(), container).examine()


def test_a_machine_without_a_gpu_is_healthy() -> None:
    report = examine()
    assert (report.health, report.reasons, report.gpus) == ("healthy", [], [])
    assert (report.memory_pct, report.disk_free_pct) == (30, 50)


@pytest.mark.parametrize(
    ("free_pct", "of", "health"),
    [
        (50, 100 * GIB, "healthy"),
        (9, 50 * GIB, "degraded"),
        (9, 1_000 * GIB, "healthy"),
        (1, 50 * GIB, "unhealthy"),
        (1, 150 * GIB, "degraded"),
    ],
)
def test_a_disk_is_full_when_little_of_it_is_free_by_share_and_by_size(monkeypatch, free_pct, of, health) -> None:
    disk_is(monkeypatch, free_pct=free_pct, of=of)
    report = examine()
    assert report.health == health
    assert report.reasons == ([] if health == "healthy" else [f"only {free_pct} % of the disk is free"])


def test_a_full_memory_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    memory_is(monkeypatch, 98.4)
    report = examine()
    assert (report.health, report.reasons) == ("degraded", ["98 % of the memory is in use"])


def test_the_worst_verdict_stands_and_reasons_fit_into_a_heartbeat() -> None:
    report = Report(0, 0, 50)
    report.add("unhealthy", "x" * 10_000)
    for number in range(100):
        report.add("degraded", str(number))
    assert report.health == "unhealthy"
    assert len(report.reasons) == MAX_REASONS
    assert len(report.reasons[0]) == MAX_REASON


class Nvml(ModuleType):
    """NVML as a driver with two GPUs would answer; ``broken`` ones do not."""

    NVML_TEMPERATURE_GPU = 0

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.is_loaded, self.broken, self.temperature = True, set[int](), 65

    def nvmlInit(self) -> None:
        if not self.is_loaded:
            raise RuntimeError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index in self.broken:
            raise RuntimeError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, handle: int) -> bytes:
        return b"NVIDIA T4"

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(used=3 * GIB, total=16 * GIB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle == 1:
            raise RuntimeError("Not Supported")
        return SimpleNamespace(gpu=42)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:
        return self.temperature


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    stand_in = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", stand_in)
    return stand_in


def test_gpus_are_reported_in_the_words_of_the_wire(nvml: Nvml) -> None:
    first, second = examine().gpus
    assert first == {
        "index": 0,
        "name": "NVIDIA T4",
        "uuid": "GPU-0",
        "utilisation_pct": 42.0,
        "memory_used_mb": 3072.0,
        "memory_total_mb": 16384.0,
        "temperature_c": 65.0,
    }
    # What a GPU does not tell is unknown, not zero.
    assert second["utilisation_pct"] is None


def test_a_heartbeat_with_gpus_is_one_that_the_server_takes(nvml: Nvml) -> None:
    from backend.api.messages import HeartbeatMessage

    nvml.broken = {1}
    report = examine()
    body = {"boot_id": "b", "phase": "ready", **vars(report)}
    assert HeartbeatMessage.model_validate_json(json.dumps(body)).gpus[0].utilisation_pct == 42.0


def test_a_gpu_that_does_not_answer_makes_the_machine_unfit(nvml: Nvml) -> None:
    nvml.broken = {1}
    report = examine()
    assert (report.health, report.reasons) == ("unhealthy", ["GPU 1 does not answer: GPU is lost"])
    assert [gpu["index"] for gpu in report.gpus] == [0]


def test_a_hot_gpu_is_a_reason(nvml: Nvml) -> None:
    nvml.temperature = 93
    report = examine()
    assert (report.health, report.reasons) == ("degraded", ["GPU 0 is at 93.0 °C", "GPU 1 is at 93.0 °C"])


def test_a_driver_that_is_loaded_after_the_agent_began_is_found(nvml: Nvml) -> None:
    nvml.is_loaded = False
    examiner = Examiner(Path(), None)
    assert examiner.examine().gpus == []
    nvml.is_loaded = True
    assert len(examiner.examine().gpus) == 2


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stand-in `docker` on the PATH that does what a script says."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def install(script: str) -> None:
        program = tmp_path / "docker"
        program.write_text(script)
        program.chmod(0o755)

    return install


@pytest.mark.parametrize(
    ("script", "reasons"),
    [
        ('#!/bin/sh\n[ "$1 $4" = "inspect desk" ] && echo running', []),
        ("#!/bin/sh\necho exited", ["the container desk is exited"]),
        ("#!/bin/sh\necho Error: No such object >&2; exit 1", ["the container desk is not there"]),
        ("#!/nonexistent/shell", ["the container desk cannot be checked: docker does not answer: FileNotFoundError"]),
    ],
)
def test_a_container_that_does_not_run_makes_the_machine_unfit(docker, script: str, reasons: list[str]) -> None:
    docker(script)
    report = examine("desk")
    assert report.reasons == reasons
    assert report.health == ("unhealthy" if reasons else "healthy")


def test_without_docker_a_container_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = examine("desk")
    assert report.reasons == ["the container desk cannot be checked: docker is not installed"]
