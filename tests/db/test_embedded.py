"""The embedded Postgres after a hard end: whatever the dead one left lying about, the next start works."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

import backend.db.embedded as embedded_module
from backend.db.embedded import EmbeddedPostgres, PostgresFailed
from tests.harness.processes import find_postmaster, list_processes
from tests.harness.waiting import until


async def test_a_killed_postgres_starts_again_though_its_number_belongs_to_somebody_else_by_now(tmp_path: Path) -> None:
    url = await EmbeddedPostgres(tmp_path).start()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("CREATE TABLE kept (word text)")
        await connection.execute("INSERT INTO kept VALUES ('promised')")
    postmaster = find_postmaster(tmp_path)
    assert postmaster is not None
    postmaster.kill()
    for lock in (tmp_path / "postgres" / "postmaster.pid", tmp_path / "postgres" / ".s.PGSQL.5432.lock"):
        _, *rest = lock.read_text().split("\n")
        lock.write_text("\n".join([str(os.getpid()), *rest]))

    embedded = EmbeddedPostgres(tmp_path)
    async with await psycopg.AsyncConnection.connect(await embedded.start()) as connection:
        assert await (await connection.execute("SELECT word FROM kept")).fetchone() == ("promised",)
    await embedded.stop()
    assert list_processes(tmp_path, "postgres") == []


async def test_one_that_runs_is_adopted_and_one_that_is_just_ending_is_waited_for(tmp_path: Path) -> None:
    first, second = EmbeddedPostgres(tmp_path), EmbeddedPostgres(tmp_path)
    await first.start()
    running = find_postmaster(tmp_path)
    await second.start()
    assert find_postmaster(tmp_path) == running
    assert running is not None
    running.terminate()
    await until(lambda: not is_ready(tmp_path), within_s=5)
    await second.start()
    assert find_postmaster(tmp_path) not in (None, running)
    await second.stop()
    await until(lambda: list_processes(tmp_path, "postgres") == [], within_s=5)


async def test_one_that_begins_to_end_while_it_is_being_adopted_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = EmbeddedPostgres(tmp_path)
    await embedded.start()
    running = find_postmaster(tmp_path)
    assert running is not None
    adopt = embedded_module.get_server
    told_to_end: list[int] = []

    def adopt_one_that_ends(directory: Path, **options: Any) -> Any:
        if not told_to_end:
            # As the postmaster writes it, a moment before it is gone.
            lock = directory / "postmaster.pid"
            lock.write_text(lock.read_text().replace("ready   ", "stopping"))
            told_to_end.append(running.pid)
            running.terminate()
        return adopt(directory, **options)

    monkeypatch.setattr(embedded_module, "get_server", adopt_one_that_ends)
    await embedded.start()
    assert told_to_end
    assert find_postmaster(tmp_path) not in (None, running)
    await embedded.stop()


async def test_one_that_cannot_start_says_where_to_look(tmp_path: Path) -> None:
    embedded = EmbeddedPostgres(tmp_path)
    await embedded.start()
    await embedded.stop()
    (tmp_path / "postgres" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(PostgresFailed, match=str(tmp_path / "postgres" / "log")):
        await embedded.start()


def is_ready(home: Path) -> bool:
    lock = home / "postgres" / "postmaster.pid"
    return lock.exists() and lock.read_text().rstrip().endswith("ready")
