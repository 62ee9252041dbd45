"""Preparing the machine, step by step: container image, repository, container, startup script; their output is shipped
as it comes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import Config
from agent.container import find_container, list_run_arguments
from agent.program import ProgramFailed, run_to_end, script_argv
from agent.wiping import wipe

LAST_LINES = 5

Emit = Callable[[str, str], None]


class PreparationFailed(Exception):
    """The machine cannot be made ready; the message is for people."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that has ended. ``lines``: the last ones said, if it failed."""

    name: str
    has_succeeded: bool
    duration_s: float
    lines: tuple[str, ...] = ()


def prepare(config: Config, emit: Emit, stopping: threading.Event, tell: Callable[[Step], object]) -> None:
    """Does what is not done yet, so that it may be called at every start; ``tell`` hears of each step at its end.

    Raises:
        PreparationFailed: a step did not succeed within the deadline, or was broken off since ``stopping`` was set.
    """
    Preparation(config, emit, stopping, tell).run()


def reset(config: Config, emit: Emit, stopping: threading.Event, tell: Callable[[Step], object]) -> None:
    """Makes the container anew from its image, with what was made for it, and prepares the machine again.

    Raises:
        PreparationFailed: as above, or what was there could not be removed.
    """
    Preparation(config, emit, stopping, tell).reset()


def restart(config: Config, emit: Emit, stopping: threading.Event, tell: Callable[[Step], object]) -> None:
    """Restarts the container, where there is one, and does then whatever is not done yet.

    Raises:
        PreparationFailed: as with ``prepare``.
    """
    preparation = Preparation(config, emit, stopping, tell)
    preparation.restart_container()
    preparation.run()


class Preparation:
    """One preparation of one machine."""

    def __init__(self, config: Config, emit: Emit, stopping: threading.Event, tell: Callable[[Step], object]) -> None:
        self._config, self._emit, self._stopping, self._tell = config, emit, stopping, tell
        self._last: deque[str] = deque(maxlen=LAST_LINES)

    def run(self) -> None:
        """Every step in its order."""
        config = self._config
        container = find_container(config.container) if config.image and config.container else None
        if config.image and (container is None or container.image != config.image):
            self._step("image", self._pull)
            container = None
        if config.repository and not (self._workload / ".git").is_dir():
            self._step("repository", self._clone)
        if config.image and (container is None or not container.is_running):
            self._step("container", self._start_container if container else self._run_container)
        if config.startup_script and not self._has_run_in_this_boot():
            self._step("startup script", self._run_startup_script)

    def reset(self) -> None:
        """Removes the container, what its image keeps outside of it, and the repository; then every step anew."""
        if find_container(self._config.container or "") is not None:
            self._docker("removal of the container", "rm", "--force", "--volumes", self._config.container or "")
        try:
            for path in (self._script_mark, self._workload):
                wipe(path)
        except OSError as exc:
            raise PreparationFailed(f"the repository's directory could not be removed: {exc}") from exc
        self.run()

    def restart_container(self) -> None:
        """Ends the container and starts it again, if there is one; one of another image is made anew after this."""
        if self._config.container and find_container(self._config.container):
            self._step("restart of the container", self._restart_container)

    @property
    def _workload(self) -> Path:
        return self._config.home / "workload"

    def _step(self, name: str, work: Callable[[], None]) -> None:
        began = time.monotonic()
        self._last.clear()
        try:
            work()
        except PreparationFailed as exc:
            if not self._stopping.is_set():
                self._tell(Step(name, False, time.monotonic() - began, tuple(self._last) or (str(exc),)))
            raise
        self._tell(Step(name, True, time.monotonic() - began))

    def _pull(self) -> None:
        self._docker("pull of the image", "pull", "--quiet", self._config.image or "")

    def _run_container(self) -> None:
        name = self._config.container or ""
        if find_container(name) is not None:
            # Of another image, or one whose start failed.
            self._docker("removal of the former container", "rm", "--force", name)
        self._workload.mkdir(mode=0o755, exist_ok=True)
        self._docker("start of the container", *list_run_arguments(name, self._config.image or "", self._workload))

    def _restart_container(self) -> None:
        self._docker("restart of the container", "restart", "--time", "10", self._config.container or "")

    def _start_container(self) -> None:
        self._docker("start of the container", "start", self._config.container or "")

    def _docker(self, what: str, *arguments: str) -> None:
        self._run(what, [_find_program("docker"), *arguments], "container")

    def _clone(self) -> None:
        unfinished = self._config.home / "workload.new"
        git = _find_program("git")
        for directory in (self._workload, unfinished):
            shutil.rmtree(directory, ignore_errors=True)
        argv = [git, "clone", "--depth", "1", "--", self._config.repository or "", str(unfinished)]
        self._run("clone of the repository", argv, "repository")
        # Only a whole one gets the name: one that was cut off must not be taken for it at the next start.
        unfinished.rename(self._workload)

    def _has_run_in_this_boot(self) -> bool:
        """Whether the agent alone was started again: a second run beside what the first one left running."""
        with contextlib.suppress(FileNotFoundError):
            return self._script_mark.read_text(encoding="utf-8") == self._config.boot_id
        return False

    @property
    def _script_mark(self) -> Path:
        return self._config.home / "startup.boot"

    def _run_startup_script(self) -> None:
        assert self._config.startup_script
        try:
            argv = script_argv("startup script", self._config.startup_script)
        except ProgramFailed as exc:
            raise PreparationFailed(str(exc)) from exc
        self._run("startup script", argv, "startup")
        self._script_mark.write_text(self._config.boot_id, encoding="utf-8")

    def _run(self, what: str, argv: list[str], source: str) -> None:
        config = self._config
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
        if config.container:
            environment["LABLINK_CONTAINER"] = config.container
        try:
            run_to_end(
                what,
                argv,
                directory=config.home,
                environment=environment,
                emit=lambda said: self._hear(source, said),
                deadline_s=config.startup_deadline_s,
                stopping=self._stopping,
            )
        except ProgramFailed as exc:
            raise PreparationFailed(str(exc)) from exc

    def _hear(self, source: str, said: str) -> None:
        self._last.append(said)
        self._emit(source, said)


def _find_program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        what = {"git": "the repository cannot be cloned", "docker": "the container cannot be started"}[name]
        raise PreparationFailed(f"{what}: {name} is not installed")
    return found
