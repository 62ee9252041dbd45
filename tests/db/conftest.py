"""Tests of the database itself leave connections that are killed, or broken off in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from backend.db.engine import Database


@pytest.fixture
async def db(db: Database) -> AsyncIterator[Database]:
    """The same, with connections of each test's own."""
    yield db
    await db.close()
