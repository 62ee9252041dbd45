"""Logs that others write: the workload's container, and cloud-init at the boot. Followed, and not read twice."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.logs import LogBuffer
from agent.program import Program

WORKLOAD, BOOT = "workload", "cloud-init"
# Of a container that ran before anybody followed it.
FIRST_LINES = "1000"
LOOK_S, AGAIN_S = 0.2, 2.0
BOOT_LOOK_S, LONGEST_BOOT_S, LAST_BOOT_LINES, LAST_BOOT_BYTES = 2.0, 1_800.0, 200, 64 * 1024


def follow_container(name: str, buffer: LogBuffer, home: Path, stopping: threading.Event) -> None:
    """Ships what the container writes, from where the last agent was, until ``stopping``; through its restarts too."""

    def hear(said: str) -> None:
        stamp, _, text = said.partition(" ")
        at_ms = _parse(stamp)
        # Without a time it is Docker itself that speaks; up to the mark it was heard before.
        if at_ms is not None and stamp > (buffer.find_mark(WORKLOAD) or ""):
            buffer.add(WORKLOAD, text, at_ms=at_ms, mark=stamp)

    while not stopping.is_set():
        if docker := shutil.which("docker"):
            since = buffer.find_mark(WORKLOAD)
            which = ["--since", since] if since else ["--tail", FIRST_LINES]
            with contextlib.suppress(OSError):
                argv = [docker, "logs", "--follow", "--timestamps", *which, name]
                _run(Program(argv, directory=home, environment=os.environ, emit=hear), stopping)
        stopping.wait(AGAIN_S)


def ship_boot(status: Path, output: Path, buffer: LogBuffer, boot_id: str, stopping: threading.Event) -> None:
    """Ships cloud-init's phases as they end, and then the last lines it wrote; once in a boot."""
    if buffer.find_mark(BOOT) == boot_id:
        return
    told: set[str] = set()
    for _ in range(int(LONGEST_BOOT_S / BOOT_LOOK_S)):
        phases = _read_phases(status)
        for name, phase in phases.items():
            if name not in told and phase.get("finished"):
                told.add(name)
                buffer.add(BOOT, _phase_words(name, phase))
        if "modules-final" in told or not phases or stopping.wait(BOOT_LOOK_S):
            break
    if not stopping.is_set():
        for line in _read_end(output):
            buffer.add(BOOT, line)
        buffer.add(BOOT, "this is the end of what cloud-init wrote", mark=boot_id)


def _run(program: Program, stopping: threading.Event) -> None:
    while program.status is None:
        if stopping.wait(LOOK_S):
            program.end()
    program.read_on(within_s=1.0)


def _parse(stamp: str) -> int | None:
    try:
        at = datetime.fromisoformat(stamp)
    except ValueError:
        return None
    return int(at.timestamp() * 1_000) if at.tzinfo else None


def _read_phases(status: Path) -> Mapping[str, Any]:
    try:
        said = json.loads(status.read_text(encoding="utf-8"))["v1"]
        return {name: phase for name, phase in said.items() if isinstance(phase, dict) and "finished" in phase}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _phase_words(name: str, phase: Mapping[str, Any]) -> str:
    errors = "; ".join(map(str, phase.get("errors") or ()))
    try:
        took = f" after {float(phase['finished']) - float(phase['start']):.1f} s"
    except (KeyError, TypeError, ValueError):
        took = ""
    return f"ERROR {name}: failed{took}: {errors}" if errors else f"{name}: done{took}"


def _read_end(output: Path) -> list[str]:
    try:
        with output.open("rb") as file:
            file.seek(max(0, output.stat().st_size - LAST_BOOT_BYTES))
            lines = file.read(LAST_BOOT_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return lines[-LAST_BOOT_LINES:]
