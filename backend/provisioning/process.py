"""One Terraform process: started, followed through a file, stopped; and found again after we were killed ourselves.

Its output goes to a file that we follow, not to a pipe: when this server dies, a running apply goes on undisturbed and
writes its state, instead of dying of a broken pipe in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from backend.provisioning.priority import NICENESS, yield_to_pages

LOOK_S = 0.05
PID_FILE = "terraform.pid"
# How long our own end waits for Terraform's: time to write its state, before what it made is looked for.
FAREWELL_S = 10.0
# Making machines can wait; pages that people look at cannot. (The program does it, since on Linux a niceness set from
# outside reaches one thread alone, and Terraform has several at once.)
POLITELY = ("nice", "-n", str(NICENESS))


async def run(
    argv: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] = lambda _: None,
    cancel: asyncio.Event | None = None,
    grace_s: float = 30,
) -> int:
    """Runs to the end; every line of output is handed to ``on_line`` as it comes. Returns the exit status.

    When ``cancel`` is set, Terraform is asked to stop (SIGINT: it finishes what it is at and writes its state) and,
    after ``grace_s`` seconds, killed.
    """
    output = directory / "terraform.out"
    with output.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            *(POLITELY if shutil.which(POLITELY[0]) else ()),
            *argv,
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    yield_to_pages(process.pid)
    _note_pid(directory, process.pid)
    stopping = asyncio.create_task(_stop_when(cancel, process, grace_s)) if cancel else None
    try:
        with output.open("rb") as source:
            rest = b""
            while True:
                has_ended = process.returncode is not None
                *lines, rest = (rest + source.read()).split(b"\n")
                for line in lines:
                    on_line(line.decode(errors="replace"))
                if has_ended:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(process.wait()), LOOK_S)
        if rest:
            on_line(rest.decode(errors="replace"))
        return process.returncode or 0
    finally:
        if stopping:
            stopping.cancel()
        if process.returncode is None:
            # We are being stopped. If it does not end in time, whoever comes next finds it by its pid file.
            await _ask_to_end(process)
        if process.returncode is not None:
            _end_orphans(process.pid, process.returncode)
            (directory / PID_FILE).unlink(missing_ok=True)


async def end_leftover(directory: Path, *, grace_s: float) -> bool:
    """Ends a Terraform that an earlier server left running here. Returns whether there was one."""
    process = _find_leftover(directory)
    if process is None:
        return False
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGINT)
        if not await _has_ended(process, grace_s):
            os.killpg(process.pid, signal.SIGKILL)
            await _has_ended(process, 5)
    (directory / PID_FILE).unlink(missing_ok=True)
    return True


async def _ask_to_end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(FAREWELL_S):
            await process.wait()


async def _stop_when(cancel: asyncio.Event, process: asyncio.subprocess.Process, grace_s: float) -> None:
    await cancel.wait()
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(grace_s)
        # The whole group: its provider processes with it. VMs' agents are in sessions of their own.
        os.killpg(process.pid, signal.SIGKILL)


async def _has_ended(process: psutil.Process, within_s: float) -> bool:
    end = asyncio.get_running_loop().time() + within_s
    while asyncio.get_running_loop().time() < end:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(LOOK_S)
    return False


def _end_orphans(group: int, status: int) -> None:
    """What a Terraform that was killed had begun: it must not go on making machines that nobody counts any more."""
    if status < 0:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _note_pid(directory: Path, pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        noted = {"pid": pid, "created": psutil.Process(pid).create_time()}
        (directory / PID_FILE).write_text(json.dumps(noted), encoding="ascii")


def _find_leftover(directory: Path) -> psutil.Process | None:
    try:
        noted = json.loads((directory / PID_FILE).read_text(encoding="ascii"))
        process = psutil.Process(int(noted["pid"]))
        return process if abs(process.create_time() - float(noted["created"])) < 0.1 else None
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
