"""A program that the agent runs: in a group of its own, its output read as it comes, ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

END_GRACE_S = 1.0
LONGEST = 64 * 1024
LOOK_S, LAST_LINES_S = 0.05, 1.0


class ProgramFailed(Exception):
    """A program did not do its work; the message is for people."""


class BrokenOff(ProgramFailed):
    """It was ended since the agent ends."""


class Program:
    """One run of one program; no shell."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        emit: Callable[[str], None],
        typed: str = "",
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts it. ``emit`` gets each line of its output, ``typed`` is all of its input.

        Raises:
            OSError: it could not be started.
        """
        self._process = subprocess.Popen(
            argv,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.PIPE if typed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **(identity or {}),
        )
        # By a thread of its own: what the program leaves running may hold its output open for ever.
        self._reader = threading.Thread(target=self._read, args=(emit,), daemon=True)
        self._reader.start()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(typed.encode())
                self._process.stdin.close()

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        return self._process.poll()

    def read_on(self, *, within_s: float) -> None:
        """Waits for the last lines of one that has ended."""
        self._reader.join(within_s)

    def end(self) -> None:
        """Ends it and what it started: politely, then not."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_GRACE_S)

    def _read(self, emit: Callable[[str], None]) -> None:
        if self._process.stdout is not None:
            for line in read_lines(self._process.stdout):
                emit(line)


def read_lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come, whatever bytes they are of. Of one without end only its beginning is kept in memory."""
    while raw := stream.readline(LONGEST):
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            while (rest := stream.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            # Without its last part: there may be half a secret, which nobody would know.
            raw = raw[: -LONGEST // 4]
        yield raw.decode("utf-8", "replace").rstrip("\r\n")


def run_to_end(
    what: str,
    argv: list[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    emit: Callable[[str], None],
    deadline_s: float,
    stopping: threading.Event,
) -> None:
    """Runs a program and waits until it has succeeded; it is ended after ``deadline_s`` or when ``stopping`` is set.

    Raises:
        ProgramFailed: it did not succeed; says why of ``what``.
        BrokenOff: ``stopping`` was set.
    """
    try:
        program = Program(argv, directory=directory, environment=environment, emit=emit)
    except OSError as exc:
        raise ProgramFailed(f"the {what} could not be started: {exc.strerror}") from exc
    end = time.monotonic() + deadline_s
    while program.status is None:
        if stopping.wait(LOOK_S):
            program.end()
            raise BrokenOff(f"the {what} was broken off")
        if time.monotonic() > end:
            program.end()
            raise ProgramFailed(f"the {what} did not end within {deadline_s:.0f} s")
    program.read_on(within_s=LAST_LINES_S)
    if program.status != 0:
        raise ProgramFailed(f"the {what} ended with exit status {program.status}")


def script_argv(what: str, script: Path) -> list[str]:
    """How a script of an admin's is run: as a program if it is one, else by the shell.

    Raises:
        ProgramFailed: there is none.
    """
    if not script.is_file():
        raise ProgramFailed(f"the {what} {script} does not exist")
    shell = os.environ.get("SHELL_FOR_STARTUP") or "/bin/sh"
    return [str(script)] if os.access(script, os.X_OK) else [shell, str(script)]
