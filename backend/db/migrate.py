"""Alembic migrations, run at each start under an advisory lock, so that many processes may start at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from backend.db.embedded import EmbeddedPostgres
from backend.db.engine import plain_url
from backend.settings import Settings

# Any fixed number; nothing else in this database takes it.
MIGRATION_LOCK = 7_426_001


async def migrate(url: str) -> None:
    """Brings the schema to the newest revision. Waits while another process does the same."""
    await asyncio.to_thread(_migrate, url)


def run_migrate(settings: Settings) -> int:
    """`lablink migrate`. Returns the exit status."""
    asyncio.run(_migrate_configured(settings))
    print("The database has this version's schema.")
    return 0


async def _migrate_configured(settings: Settings) -> None:
    embedded = None if settings.secrets.database_url else EmbeddedPostgres(settings.home)
    try:
        await migrate(settings.secrets.database_url or (await embedded.start() if embedded else ""))
    finally:
        if embedded:
            await embedded.stop()


def _migrate(url: str) -> None:
    engine = create_engine(plain_url(url).replace("postgresql://", "postgresql+psycopg://", 1))
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


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
