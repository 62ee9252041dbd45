"""Preparing the machine: the repository and the startup script, with their output shipped as it comes."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable

from agent.config import Config
from agent.program import Program

LOOK_S, LAST_LINES_S = 0.05, 1.0

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
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    try:
        program = Program(argv, directory=config.home, environment=environment, emit=emit)
    except OSError as exc:
        raise PreparationFailed(f"the {what} could not be started: {exc.strerror}") from exc
    end = time.monotonic() + config.startup_deadline_s
    while program.status is None:
        if stopping.wait(LOOK_S) or time.monotonic() > end:
            program.end()
            why = "was broken off" if stopping.is_set() else f"did not end within {config.startup_deadline_s:.0f} s"
            raise PreparationFailed(f"the {what} {why}")
    program.read_on(within_s=LAST_LINES_S)
    if program.status != 0:
        raise PreparationFailed(f"the {what} ended with exit status {program.status}")
