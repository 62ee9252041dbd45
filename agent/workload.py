"""Preparing the machine: the repository and the startup script, with their output shipped as it comes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable

from agent.config import Config

LOOK_S, END_GRACE_S, LAST_LINES_S = 0.05, 1.0, 1.0

Emit = Callable[[str, str], None]


class PreparationFailed(Exception):
    """The machine cannot be made ready; the message is for people."""


def prepare(config: Config, emit: Emit, stopping: threading.Event) -> None:
    """Clones the repository (unless it is there) and runs the startup script.

    Raises:
        PreparationFailed: either did not succeed within the deadline, or was broken off since ``stopping`` was set.
    """
    if config.repository:
        _clone(config, config.repository, emit, stopping)
    if config.startup_script:
        if not config.startup_script.is_file():
            raise PreparationFailed(f"the startup script {config.startup_script} does not exist")
        shell = os.environ.get("SHELL_FOR_STARTUP") or "/bin/sh"
        script = config.startup_script
        argv = [str(script)] if os.access(script, os.X_OK) else [shell, str(script)]
        _run("startup script", argv, config, lambda line: emit("startup", line), stopping)


def _clone(config: Config, repository: str, emit: Emit, stopping: threading.Event) -> None:
    target, unfinished = config.home / "workload", config.home / "workload.new"
    if (target / ".git").is_dir():
        return
    git = shutil.which("git")
    if git is None:
        raise PreparationFailed("the repository cannot be cloned: git is not installed")
    for directory in (target, unfinished):
        shutil.rmtree(directory, ignore_errors=True)
    argv = [git, "clone", "--depth", "1", "--", repository, str(unfinished)]
    _run("clone of the repository", argv, config, lambda line: emit("repository", line), stopping)
    # Only a whole one gets the name: one that was cut off must not be taken for it at the next start.
    unfinished.rename(target)


def _run(what: str, argv: list[str], config: Config, emit: Callable[[str], None], stopping: threading.Event) -> None:
    try:
        process = subprocess.Popen(
            argv,
            cwd=config.home,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as exc:
        raise PreparationFailed(f"the {what} could not be started: {exc.strerror}") from exc
    # Read by a thread of its own: what the script leaves running may hold its output open for ever.
    reader = threading.Thread(target=_read, args=(process, emit), daemon=True)
    reader.start()
    end = time.monotonic() + config.startup_deadline_s
    while process.poll() is None:
        if stopping.wait(LOOK_S) or time.monotonic() > end:
            _end(process)
            why = "was broken off" if stopping.is_set() else f"did not end within {config.startup_deadline_s:.0f} s"
            raise PreparationFailed(f"the {what} {why}")
    reader.join(LAST_LINES_S)
    if process.returncode != 0:
        raise PreparationFailed(f"the {what} ended with exit status {process.returncode}")


def _read(process: subprocess.Popen[str], emit: Callable[[str], None]) -> None:
    for line in process.stdout or ():
        emit(line.rstrip("\n"))


def _end(process: subprocess.Popen[str]) -> None:
    """Ends the process and what it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_GRACE_S)
