"""A shell on a pty. It goes on whether or not anybody is connected; the newest part of its output is kept.

While somebody looks, and for a while after, it is read only as fast as they take it: what writes without end then waits
at its own terminal, and nothing is missing after a short outage. When nobody has looked for long, it flows freely, and
the oldest output is let go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Output that may be on its way to whoever looks, and how much of it is kept (in bytes).
WINDOW, KEPT = 256 * 1024, 320 * 1024
READ, FRAME, INPUT = 48 * 1024, 32 * 1024, 1024 * 1024
# How long a shell waits for somebody to come back, and between two reads once nobody did.
PATIENCE_S, UNWATCHED_S = 60.0, 0.02
END_GRACE_S = 2.0
# The leader of a new session gets the terminal that it opens first as its own.
_TAKE_TERMINAL = 'exec "$@" <>"$0" >&0 2>&0'


class Shell:
    """One shell, and the thread that turns its output and input over."""

    def __init__(
        self, argv: Sequence[str], *, environment: Mapping[str, str], directory: Path, identity: Mapping[str, Any]
    ) -> None:
        """Starts it.

        Raises:
            OSError: it could not be started.
        """
        self._master, slave = os.openpty()
        try:
            self._process = _spawn(argv, slave, environment, directory, identity)
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._changed = threading.Condition()
        self._output, self._first = bytearray(), 0
        self._input = bytearray()
        self._acknowledged = 0
        self._watched_until = time.monotonic() + PATIENCE_S
        self._is_open = True
        self.status: int | None = None
        threading.Thread(target=self._wait, daemon=True).start()
        threading.Thread(target=self._turn, daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended and all of its output has been read."""
        return not self._is_open

    def take(self, offset: int, *, wait_s: float) -> tuple[int, bytes]:
        """Output from ``offset`` on, or from the oldest that is kept; waits for some. Empty if none came."""
        with self._changed:
            self._changed.wait_for(lambda: self._last > offset or not self._is_open, wait_s)
            start = max(offset, self._first)
            return start, bytes(self._output[start - self._first : start - self._first + FRAME])

    def type(self, content: bytes) -> None:
        """Input. More than a shell takes in for long is let go."""
        with self._changed:
            self._input += content[: INPUT - len(self._input)]
        self._wake()

    def resize(self, columns: int, rows: int) -> None:
        """Tells the shell how large its terminal is."""
        with self._changed:
            if self._is_open:
                fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def acknowledge(self, offset: int) -> None:
        """Somebody has seen the output up to here."""
        with self._changed:
            self._acknowledged = max(self._acknowledged, min(offset, self._last))
        self._wake()

    def watch(self, *, is_watched: bool) -> None:
        """Whether somebody looks."""
        with self._changed:
            self._watched_until = (
                float("inf") if is_watched else min(self._watched_until, time.monotonic() + PATIENCE_S)
            )
        self._wake()

    def hang_up(self) -> None:
        """Ends the shell and what runs in its foreground, as closing a terminal's window does."""
        for number in (signal.SIGHUP, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_GRACE_S)
                break
        with self._changed:
            # Nobody will take what is left.
            self._watched_until = 0.0
        self._wake()

    @property
    def _last(self) -> int:
        return self._first + len(self._output)

    def _wait(self) -> None:
        status = self._process.wait()
        with self._changed:
            self.status = status if status >= 0 else 128 - status
        self._wake()

    def _wake(self) -> None:
        with self._changed, contextlib.suppress(BlockingIOError):
            if self._is_open:
                os.write(self._waker, b"!")

    def _turn(self) -> None:
        """Reads and writes the pty until its process has ended and nothing is left to read."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        while True:
            wanted, pause_s = self._look()
            if wanted:
                poll.register(self._master, wanted)
            else:
                with contextlib.suppress(KeyError):
                    poll.unregister(self._master)
            has_ended = self.status is not None
            ready = dict(poll.poll(0 if has_ended and wanted & select.POLLIN else pause_s * 1_000))
            if ready.get(self._woken):
                os.read(self._woken, 4_096)
            seen = ready.get(self._master, 0)
            if seen & select.POLLOUT:
                self._write()
            if seen & (select.POLLIN | select.POLLHUP | select.POLLERR):
                if not self._read() and has_ended:
                    break
            elif has_ended and wanted & select.POLLIN:
                break
        self._close()

    def _look(self) -> tuple[int, float]:
        """What to wait for, and for how long at most, in seconds."""
        with self._changed:
            patience_s = self._watched_until - time.monotonic()
            may_read = self._last - self._acknowledged < WINDOW or patience_s <= 0
            wanted = (select.POLLIN if may_read else 0) | (select.POLLOUT if self._input else 0)
        if patience_s <= 0 and self._last - self._acknowledged >= WINDOW and self.status is None:
            # What writes without end and is read by nobody must not have a core of its own.
            time.sleep(UNWATCHED_S)
        return wanted, max(0.0, min(patience_s, 3_600.0)) if not may_read else 3_600.0

    def _read(self) -> bool:
        """Reads what is there; a pty gives out little at a time. Returns whether more may come."""
        content = bytearray()
        try:
            while len(content) < READ and (part := os.read(self._master, READ)):
                content += part
        except BlockingIOError:
            if not content:
                return True
        except OSError:
            # EIO: nobody holds the other end.
            pass
        if not content:
            # Its end is told by whoever waits for the process; until then there is nothing to turn over.
            self._process.wait()
            return False
        with self._changed:
            self._output += content
            surplus = len(self._output) - KEPT
            if surplus > 0:
                del self._output[:surplus]
                self._first += surplus
            self._changed.notify_all()
        return True

    def _write(self) -> None:
        with self._changed:
            content = bytes(self._input[:FRAME])
        with contextlib.suppress(BlockingIOError, OSError):
            written = os.write(self._master, content)
            with self._changed:
                del self._input[:written]

    def _close(self) -> None:
        with self._changed:
            self._is_open = False
            for descriptor in (self._master, self._woken, self._waker):
                os.close(descriptor)
            self._changed.notify_all()


def _spawn(
    argv: Sequence[str], slave: int, environment: Mapping[str, str], directory: Path, identity: Mapping[str, Any]
) -> subprocess.Popen[bytes]:
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    if "user" in identity:
        os.fchown(slave, identity["user"], -1)
    return subprocess.Popen(
        ["/bin/sh", "-c", _TAKE_TERMINAL, os.ttyname(slave), *argv],
        cwd=directory,
        env=dict(environment),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        umask=0o022,
        **identity,
    )
