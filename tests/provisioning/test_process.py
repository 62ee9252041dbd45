from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from backend.provisioning.priority import NICENESS
from backend.provisioning.process import PID_FILE, end_leftover, run
from tests.harness.waiting import until

STUBBORN = "trap 'echo asked' INT; echo began; while :; do sleep 0.02; done"
ENVIRONMENT = {"PATH": os.environ["PATH"]}


async def test_lines_come_as_they_are_written_and_none_is_lost(tmp_path: Path) -> None:
    gate, lines = tmp_path / "gate", []
    os.mkfifo(gate)
    script = f"echo first; read go < {gate}; echo second; echo broken >&2; printf 'no end'; exit 3"
    work = asyncio.create_task(
        run(["sh", "-c", script], directory=tmp_path, environment=ENVIRONMENT, on_line=lines.append)
    )
    await until(lambda: lines == ["first"], every_s=0.005)
    await asyncio.to_thread(gate.write_text, "go\n")
    assert await work == 3
    assert lines == ["first", "second", "broken", "no end"]
    assert not (tmp_path / PID_FILE).exists()


async def test_terraform_runs_with_less_right_to_the_processor_than_the_server(tmp_path: Path) -> None:
    lines: list[str] = []
    await run(["nice"], directory=tmp_path, environment=ENVIRONMENT, on_line=lines.append)
    assert lines == [str(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)]


async def test_without_the_program_that_lowers_it_terraform_runs_all_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("backend.provisioning.process.POLITELY", ("there-is-no-such-program", "-n", "5"))
    assert await run(["/bin/sh", "-c", "exit 0"], directory=tmp_path, environment={}) == 0


async def test_what_a_killed_terraform_had_begun_ends_with_it(tmp_path: Path) -> None:
    script = "sleep 600 & echo $! > begun; kill -9 $$"
    assert await run(["sh", "-c", script], directory=tmp_path, environment=ENVIRONMENT) == -signal.SIGKILL
    begun = int((tmp_path / "begun").read_text())
    await until(lambda: not psutil.pid_exists(begun) or psutil.Process(begun).status() == psutil.STATUS_ZOMBIE)


async def test_a_cancel_asks_first_and_kills_after_its_grace(tmp_path: Path) -> None:
    cancel, lines = asyncio.Event(), []
    work = asyncio.create_task(
        run(
            ["sh", "-c", STUBBORN],
            directory=tmp_path,
            environment=ENVIRONMENT,
            on_line=lines.append,
            cancel=cancel,
            grace_s=0.3,
        )
    )
    await until(lambda: "began" in lines, every_s=0.005)
    cancel.set()
    assert await work == -signal.SIGKILL
    assert "asked" in lines


async def test_a_terraform_that_a_killed_server_left_is_ended_and_another_process_of_that_number_is_not(
    tmp_path: Path,
) -> None:
    script = f"""
import asyncio, os, signal
from pathlib import Path
from backend.provisioning.process import run
def on_line(line): os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(run(["sh", "-c", {STUBBORN!r}], directory=Path({str(tmp_path)!r}), environment=os.environ, on_line=on_line))
"""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await killed.wait() == -signal.SIGKILL
    noted = json.loads((tmp_path / PID_FILE).read_text())
    left = psutil.Process(noted["pid"])
    assert left.is_running()
    assert await end_leftover(tmp_path, grace_s=0.2)
    assert not left.is_running() or left.status() == psutil.STATUS_ZOMBIE
    assert "asked" in (tmp_path / "terraform.out").read_text()
    assert not await end_leftover(tmp_path, grace_s=0.2)

    other = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / PID_FILE).write_text(json.dumps({"pid": other.pid, "created": noted["created"]}))
        assert not await end_leftover(tmp_path, grace_s=0.2)
        assert other.poll() is None
        for damaged in ("", "{}", '{"pid": "x", "created": 0}', '{"pid": 999999999, "created": 0}'):
            (tmp_path / PID_FILE).write_text(damaged)
            assert not await end_leftover(tmp_path, grace_s=0.2)
    finally:
        other.kill()
        other.wait()


async def test_being_stopped_waits_for_terraform_to_write_its_state(tmp_path: Path) -> None:
    lines: list[str] = []
    script = "trap 'sleep 0.2; echo the state > state; exit 1' INT; echo began; while :; do sleep 0.02; done"
    work = asyncio.create_task(
        run(["sh", "-c", script], directory=tmp_path, environment=ENVIRONMENT, on_line=lines.append)
    )
    await until(lambda: lines == ["began"], every_s=0.005)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    assert (tmp_path / "state").read_text() == "the state\n"
    assert not (tmp_path / PID_FILE).exists()
