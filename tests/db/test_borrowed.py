"""Who may be in a data directory at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from backend.db.borrowed import alone_in, together_in
from backend.errors import Conflict

HERE, THERE = "postgresql://kim:secret@db.example.org/lablink", "postgresql://db.example.org/other"


def test_only_servers_of_one_database_share_a_data_directory(tmp_path: Path) -> None:
    with together_in(tmp_path, HERE):
        # Another user's name is another way to the same database.
        with together_in(tmp_path, HERE.replace("kim:secret", "ann:other")):
            pass
        with pytest.raises(Conflict, match="another database"), together_in(tmp_path, THERE):
            pass
        with pytest.raises(Conflict), alone_in(tmp_path):
            pass
    with together_in(tmp_path, THERE):
        pass
    with alone_in(tmp_path), pytest.raises(Conflict), together_in(tmp_path, HERE):
        pass
    assert "secret" not in (tmp_path / "server.lock").read_text()


def test_servers_of_one_database_that_start_together_all_come_in(tmp_path: Path) -> None:
    count = 8
    together = Barrier(count)

    def start_again_and_again() -> None:
        try:
            for _ in range(20):
                together.wait()
                with together_in(tmp_path, HERE):
                    together.wait()
        except Conflict:
            together.abort()
            raise

    with ThreadPoolExecutor(count) as servers:
        starts = [servers.submit(start_again_and_again) for _ in range(count)]
    assert [start.exception() for start in starts] == [None] * count
