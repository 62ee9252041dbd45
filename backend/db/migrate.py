"""Alembic migrations, run at each start under an advisory lock, so that many processes may start at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import plain_url
from backend.errors import Unavailable
from backend.settings import Settings

# Any fixed number; nothing else in this database takes it.
MIGRATION_LOCK = 7_426_001


async def migrate(url: str) -> None:
    """Brings the schema to the newest revision. Waits while another process does the same.

    Raises:
        Unavailable: Postgres cannot be reached, or does not let us change the schema.
    """
    try:
        await asyncio.to_thread(_migrate, url)
    except OperationalError as exc:
        raise Unavailable(f"The database cannot be reached: {_reason(exc)}") from exc
    except DBAPIError as exc:
        raise Unavailable(f"The database cannot be brought to this version's schema: {_reason(exc)}") from exc


def run_migrate(settings: Settings) -> int:
    """`lablink migrate`. Returns the exit status."""
    asyncio.run(_migrate_configured(settings))
    print("The database has this version's schema.")
    return 0


async def _migrate_configured(settings: Settings) -> None:
    embedded = None if settings.secrets.database_url else EmbeddedPostgres(settings.home)
    was_running = embedded is not None and embedded.is_running()
    try:
        await migrate(settings.secrets.database_url or (await embedded.start() if embedded else ""))
    finally:
        # One that ran already belongs to a server that works with it.
        if embedded and not was_running:
            await embedded.stop()


def _migrate(url: str) -> None:
    engine = _make_engine(url)
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
            connection.commit()
            try:
                config = _config()
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
                connection.commit()
    finally:
        engine.dispose()


def _make_engine(url: str) -> Engine:
    driver_url = plain_url(url).replace("postgresql://", "postgresql+psycopg://", 1)
    try:
        return create_engine(driver_url, connect_args={"connect_timeout": 10})
    except (ArgumentError, ValueError) as exc:
        raise Unavailable("The database cannot be reached: LABLINK_DATABASE_URL is not a URL.") from exc


def _reason(exc: DBAPIError) -> str:
    """What Postgres said, in one line."""
    return " ".join(str(exc.orig).split())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
