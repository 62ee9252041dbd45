"""Alembic migrations, run at each start under an advisory lock, so that many processes may start at once."""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

from backend.db.engine import plain_url

# Any fixed number; nothing else in this database takes it.
MIGRATION_LOCK = 7_426_001


async def migrate(url: str) -> None:
    """Brings the schema to the newest revision. Waits while another process does the same."""
    await asyncio.to_thread(_migrate, url)


def is_current(connection: Connection) -> bool:
    """Whether the schema is at the newest revision that this code knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    return MigrationContext.configure(connection).get_current_revision() == newest


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
