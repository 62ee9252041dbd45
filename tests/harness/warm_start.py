"""Starts servers from a process that has imported them already.

Importing the server costs 3 s of a core, and the suite starts it dozens of times. A helper imports it once and forks
for each start: what runs then is ``lablink``'s own ``main`` with the given arguments and environment, in a process of
its own that can be killed like any other. Tests of the start itself start the command.

One thing is not as it is elsewhere: passwords are hashed at once.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

PAUSE_S = 0.005
COMMAND = "lablink_ui.cli"


class Forked:
    """A process that the helper forked: its exit status is in a file, written when the helper has reaped it."""

    def __init__(self, pid: int, status: Path) -> None:
        self.pid, self._status = pid, status
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, or None while it lives."""
        if self.returncode is None and self._status.exists():
            self.returncode = int(self._status.read_text())
        return self.returncode

    def wait(self, timeout: float = 60) -> int:
        """Waits for its end; returns the exit status."""
        end = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("lablink", timeout)
            time.sleep(PAUSE_S)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Helper:
    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="lablink-warm-")
        self._numbers = itertools.count()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.warm_start"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
        )
        atexit.register(self._close)

    def start(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path, module: str) -> Forked:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        status = Path(self._directory.name) / str(next(self._numbers))
        order = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": str(Path.cwd()),
            "log": str(log),
            "status": str(status),
        }
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return Forked(int(self._process.stdout.readline()), status)

    def _close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._directory.cleanup()


_helpers: list[_Helper] = []


def start(arguments: Sequence[str], environment: Mapping[str, str], log: Path, module: str = COMMAND) -> Forked:
    """``lablink ARGUMENTS`` with exactly this environment, its output added to ``log``; returns at once.

    ``module``: whose ``main`` is run.
    """
    if not _helpers:
        _helpers.append(_Helper())
    return _helpers[0].start(arguments, environment, log, module)


def _serve() -> None:
    gc.disable()
    import uvicorn.lifespan.on
    import uvicorn.protocols.http.httptools_impl
    import uvicorn.protocols.websockets.websockets_sansio_impl  # noqa: F401 - what it would import when it serves
    from sqlalchemy.orm import configure_mappers

    from backend.settings import load_settings
    from lablink_ui import cli, main  # noqa: F401
    from tests.harness.quick_passwords import use_quick_passwords

    use_quick_passwords()
    with tempfile.TemporaryDirectory() as home:
        # What it composes once in a process is there for all then.
        load_settings(environment={"LABLINK_HOME": home})
    configure_mappers()
    gc.freeze()
    gc.enable()
    assert threading.active_count() == 1, "a process with threads must not be forked"
    statuses: dict[int, Path] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _reap(statuses))
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        if (pid := os.fork()) == 0:
            _become(order)
        statuses[pid] = Path(order["status"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


def _reap(statuses: dict[int, Path]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            status = statuses.pop(found[0])
            written = status.with_suffix(".new")
            written.write_text(str(os.waitstatus_to_exitcode(found[1])))
            written.rename(status)


def _become(order: dict[str, Any]) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    nothing, log = (
        os.open(os.devnull, os.O_RDONLY),
        os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644),
    )
    for number, target in enumerate((nothing, log, log)):
        os.dup2(target, number)
    os.close(nothing)
    os.close(log)
    sys.argv = ["lablink", *order["arguments"]]
    sys.exit(import_module(order["module"]).main(order["arguments"]))


if __name__ == "__main__":
    _serve()
