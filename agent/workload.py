"""Preparing the machine: the repository and the startup script, with their output shipped as it comes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from agent.config import Config

Emit = Callable[[str, str], None]


class PreparationFailed(Exception):
    """The machine cannot be made ready; the message is for people."""


def prepare(config: Config, emit: Emit) -> None:
    """Clones the repository (unless it is there) and runs the startup script.

    Raises:
        PreparationFailed: either did not succeed within the deadline.
    """
    if config.repository:
        _clone(config, config.repository, emit)
    if config.startup_script:
        if not config.startup_script.is_file():
            raise PreparationFailed(f"the startup script {config.startup_script} does not exist")
        shell = os.environ.get("SHELL_FOR_STARTUP") or "/bin/sh"
        script = config.startup_script
        argv = [str(script)] if os.access(script, os.X_OK) else [shell, str(script)]
        _run("startup script", argv, config.home, config.startup_deadline_s, lambda line: emit("startup", line))


def _clone(config: Config, repository: str, emit: Emit) -> None:
    target = config.home / "workload"
    if (target / ".git").is_dir():
        return
    git = shutil.which("git")
    if git is None:
        raise PreparationFailed("the repository cannot be cloned: git is not installed")
    shutil.rmtree(target, ignore_errors=True)
    argv = [git, "clone", "--depth", "1", "--", repository, str(target)]
    _run("clone of the repository", argv, config.home, config.startup_deadline_s, lambda line: emit("repository", line))


def _run(what: str, argv: list[str], directory: Path, deadline_s: float, emit: Callable[[str], None]) -> None:
    # The workload must not see what only the agent may know.
    environment = {key: value for key, value in os.environ.items() if key != "LABLINK_ENROLMENT_TOKEN"}
    environment["GIT_TERMINAL_PROMPT"] = "0"
    process = subprocess.Popen(
        argv,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    expired = threading.Event()

    def end() -> None:
        expired.set()
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(deadline_s, end)
    timer.start()
    try:
        for line in process.stdout or ():
            emit(line.rstrip("\n"))
        code = process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        raise PreparationFailed(f"the {what} did not end within {deadline_s:.0f} s")
    if code != 0:
        raise PreparationFailed(f"the {what} ended with exit status {code}")
