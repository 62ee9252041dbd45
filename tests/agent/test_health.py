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


def test_figures_are_told_and_judged_by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    disk_is(monkeypatch, free_pct=1, of=50 * GIB)
    memory_is(monkeypatch, 99)
    report = examine()
    assert (report.disk_free_pct, report.disk_free_gb, report.memory_pct) == (1, 0.5, 99)
    assert (report.health, report.reasons) == ("healthy", [])


def test_the_worst_verdict_stands_and_reasons_fit_into_a_heartbeat() -> None:
    report = Report(0, 0, 50, 10)
    report.add("unhealthy", "x" * 10_000)
    for number in range(100):
        report.add("degraded", str(number))
    assert report.health == "unhealthy"
    assert len(report.reasons) == MAX_REASONS
    assert len(report.reasons[0]) == MAX_REASON


class Nvml(ModuleType):
    """NVML as a driver with two GPUs would answer; ``broken`` ones do not."""

    NVML_TEMPERATURE_GPU = 0
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC = 1, 0
    nvmlEventTypeXidCriticalError = 8
    nvmlClocksThrottleReasonHwThermalSlowdown, nvmlClocksThrottleReasonSwThermalSlowdown = 64, 32
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.is_loaded, self.broken, self.temperature = True, set[int](), 65
        self.throttle, self.ecc, self.events = 0, 0, list[tuple[int, int]]()

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

    def nvmlDeviceGetTotalEccErrors(self, handle: int, kind: int, counter: int) -> int:
        return self.ecc

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: int) -> int:
        return self.throttle

    def nvmlEventSetCreate(self) -> object:
        return object()

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: object) -> None:
        pass

    def nvmlEventSetWait_v2(self, events: object, timeout_ms: int) -> Any:
        if not self.events:
            raise RuntimeError("Timeout")
        device, xid = self.events.pop(0)
        return SimpleNamespace(device=device, eventData=xid)


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
        "ecc_uncorrected": 0,
        "throttle": [],
        "xids": [],
    }
    # What a GPU does not tell is unknown, not zero.
    assert second["utilisation_pct"] is None


def test_a_heartbeat_with_gpus_is_one_that_the_server_takes(nvml: Nvml) -> None:
    from backend.api.messages import HeartbeatMessage

    nvml.broken = {1}
    report = examine()
    body = {"boot_id": "b", "phase": "ready", **vars(report)}
    assert HeartbeatMessage.model_validate_json(json.dumps(body)).gpus[0].utilisation_pct == 42.0


def test_a_gpu_that_does_not_answer_is_told_with_why_until_it_does(nvml: Nvml) -> None:
    examiner = Examiner(Path(), None)
    nvml.broken = {1}
    assert examiner.examine().gpus[1] == {"index": 1, "error": "GPU is lost"}
    nvml.is_loaded = False
    assert [gpu.get("error") for gpu in examiner.examine().gpus] == ["the driver does not answer"] * 2
    nvml.is_loaded, nvml.broken = True, set()
    assert [gpu.get("error") for gpu in examiner.examine().gpus] == [None, None]


def test_errors_of_a_gpu_are_told_from_when_they_came_until_the_end_of_the_boot(nvml: Nvml) -> None:
    nvml.events, nvml.ecc = [(1, 79), (0, 31), (1, 79)], 2
    examiner = Examiner(Path(), None)
    for _ in range(2):
        first, second = examiner.examine().gpus
        assert (first["xids"], second["xids"], first["ecc_uncorrected"]) == ([31], [79], 2)


@pytest.mark.parametrize(("bits", "words"), [(1 | 4, []), (64, ["heat"]), (32 | 128, ["heat", "power"])])
def test_a_gpu_that_slows_itself_down_says_why(nvml: Nvml, bits: int, words: list[str]) -> None:
    nvml.throttle = bits
    assert examine().gpus[0]["throttle"] == words


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
    ("script", "state"),
    [
        ('#!/bin/sh\n[ "$1 $4" = "inspect desk" ] && echo running', "running"),
        ("#!/bin/sh\necho exited", "exited"),
        ("#!/bin/sh\necho restarting", "restarting"),
        ("#!/bin/sh\necho Error: No such object >&2; exit 1", "not there"),
    ],
)
def test_the_state_of_the_container_is_told(docker, script: str, state: str) -> None:
    docker(script)
    report = examine("desk")
    assert (report.container, report.health) == ({"name": "desk", "state": state}, "healthy")


def test_a_docker_that_does_not_answer_makes_the_machine_unfit(docker) -> None:
    docker("#!/nonexistent/shell")
    report = examine("desk")
    assert report.reasons == ["the container desk cannot be checked: docker does not answer: FileNotFoundError"]
    assert report.health == "unhealthy"


def test_without_docker_a_container_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    report = examine("desk")
    assert report.reasons == ["the container desk cannot be checked: docker is not installed"]
