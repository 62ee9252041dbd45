from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from backend.db.engine import Database
from backend.db.migrate import _config, migrate
from backend.errors import Unavailable
from backend.models import Base
from backend.services.vm_logs import list_vm_log, record_vm_log
from tests.harness import warm_start
from tests.harness.server import free_port
from tests.services.worlds import make_machines

COLUMNS = ("id", "hostname", "email", "status", "crd_command", "created_at", "updated_at")


@pytest.fixture
async def empty_url(template_url: str) -> AsyncIterator[str]:
    """A database without anything in it."""
    admin = template_url.replace("/template_lablink?", "/postgres?", 1)
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute("DROP DATABASE IF EXISTS empty WITH (FORCE)")
        await connection.execute("CREATE DATABASE empty TEMPLATE template0")
    yield template_url.replace("/template_lablink?", "/empty?", 1)


async def fetch(url: str, query: str) -> list[tuple[object, ...]]:
    """What a plain SQL client sees."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        return await (await connection.execute(query)).fetchall()  # type: ignore[arg-type]


async def test_processes_that_start_together_migrate_an_empty_database_once(empty_url: str, tmp_path: Path) -> None:
    environment = {**os.environ, "LABLINK_HOME": str(tmp_path / "home"), "LABLINK_DATABASE_URL": empty_url}
    logs = [tmp_path / f"{number}.log" for number in range(4)]
    processes = [warm_start.start(["migrate"], environment, log) for log in logs]
    statuses = [await asyncio.to_thread(process.wait) for process in processes]
    assert (statuses, [log.read_text() for log in logs]) == ([0] * 4, ["The database has this version's schema.\n"] * 4)
    assert not (tmp_path / "home" / "postgres").exists()

    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert await fetch(empty_url, "SELECT version_num FROM alembic_version") == [(head,)]
    await migrate(empty_url)
    assert await fetch(empty_url, "SELECT version_num FROM alembic_version") == [(head,)]


async def test_a_migrated_database_is_what_the_models_say(database_url: str) -> None:
    engine = create_engine(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    options = {
        "compare_type": True,
        "include_name": lambda name, kind, _: not (kind == "table" and name.startswith("procrastinate_")),
    }
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    engine.dispose()
    assert differences == []


async def test_logs_of_lines_become_logs_of_batches_and_back_without_losing_one(db: Database) -> None:
    (machine, other) = await make_machines(db, 2)
    said = [f"line {number} 語" for number in range(1_200)]
    await record_vm_log(db, other.vm_id, "boot", ["of another"])
    for start in (0, 600):
        await record_vm_log(db, machine.vm_id, "workload", said[start : start + 600])
    before = ScriptDirectory.from_config(_config()).get_revision("0017").down_revision
    assert isinstance(before, str)
    await asyncio.to_thread(_move, db.conninfo, before)
    rows = await fetch(db.conninfo, f"SELECT line FROM vm_logs WHERE vm_id = {machine.vm_id} ORDER BY id")
    assert [line for (line,) in rows] == said
    await asyncio.to_thread(_move, db.conninfo, "head")
    assert [line.message for line in await list_vm_log(db, machine.vm_id)] == said
    assert [line.message for line in await list_vm_log(db, other.vm_id)] == ["of another"]
    # What comes next goes on with the numbers.
    await record_vm_log(db, machine.vm_id, "workload", ["the next"])
    assert [line.message for line in await list_vm_log(db, machine.vm_id)] == [*said, "the next"]


def _move(url: str, revision: str) -> None:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        config = _config()
        config.attributes["connection"] = connection
        (command.upgrade if revision == "head" else command.downgrade)(config, revision)
    engine.dispose()


async def test_the_table_vms_is_read_by_any_sql_client_under_its_old_names(db: Database) -> None:
    await make_machines(db, 2)
    rows = await fetch(db.conninfo, f"SELECT {', '.join(COLUMNS)} FROM vms ORDER BY id")
    assert [row[:5] for row in rows] == [
        (1, "lab-m0", None, "available", None),
        (2, "lab-m1", None, "available", None),
    ]
    types = await fetch(
        db.conninfo,
        "SELECT column_name, data_type, character_maximum_length FROM information_schema.columns "
        f"WHERE table_name = 'vms' AND column_name IN {COLUMNS} ORDER BY ordinal_position",
    )
    assert types == [
        ("id", "integer", None),
        ("hostname", "character varying", 255),
        ("email", "character varying", 255),
        ("status", "character varying", 50),
        ("crd_command", "text", None),
        ("created_at", "timestamp with time zone", None),
        ("updated_at", "timestamp with time zone", None),
    ]


async def test_a_remote_desktops_code_cannot_be_written_into_vms(db: Database) -> None:
    await make_machines(db, 1)
    async with await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection:
        await connection.execute("UPDATE vms SET crd_command = 'set'")
        with pytest.raises(psycopg.errors.CheckViolation):
            await connection.execute("UPDATE vms SET crd_command = 'start-host --code=4/secret'")


async def test_vms_has_the_triggers_that_others_know_by_name(database_url: str) -> None:
    query = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'vms'::regclass AND NOT tgisinternal ORDER BY tgname"
    assert await fetch(database_url, query) == [("notify_vm_delete",), ("notify_vm_insert",), ("notify_vm_update",)]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://nobody@127.0.0.1:{port}/none?password=hidden", "The database cannot be reached: .*refused"),
        ("postgresql://nobody:hidden@127.0.0.1:port/none", "The database cannot be reached: "),
    ],
)
async def test_a_database_that_cannot_be_reached_is_said_in_one_line(url: str, says: str) -> None:
    with pytest.raises(Unavailable, match=says) as caught:
        await migrate(url.format(port=free_port()))
    assert "\n" not in caught.value.message
    assert "hidden" not in caught.value.message


async def test_a_role_that_may_not_change_the_schema_is_said_in_one_line(empty_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as connection:
        await connection.execute("DROP ROLE IF EXISTS reader")
        await connection.execute("CREATE ROLE reader LOGIN")
    with pytest.raises(Unavailable, match="brought to this version's schema: permission denied") as caught:
        await migrate(empty_url.replace("postgres:@", "reader@", 1))
    assert "\n" not in caught.value.message
