"""The bench measures something, says what is wrong, and leaves nothing behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from lablink_ui.bench import run_bench
from lablink_ui.bench.conditions import Sizes
from lablink_ui.bench.figures import BenchFailed
from lablink_ui.bench.loadgen import Load, Shot, drive, percentile, request
from lablink_ui.bench.slow_link import SlowLink, time_bytes
from tests.harness.server import LABLINK, Server
from tests.harness.waiting import until

TINY = Sizes(machines=12, claims_at_once=4, raw_claims=40)


def test_claims_are_printed_and_written_as_ratios_to_a_limit_of_the_same_run(
    tmp_path: Path, capfd, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = tmp_path / "figures.json"
    assert run_bench(["claims"], json_file=file, sizes=TINY) == 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [each["figure"] for each in written["figures"]] == [
        "4 at once, 12 machines",
        "p50",
        "p99",
        "event loop late by, p99",
    ]
    printed = capfd.readouterr().out
    for each in written["figures"]:
        if each["limit"] is not None:
            assert each["ratio"] == pytest.approx(each["ours"] / each["limit"], rel=0.05)
        assert each["limit_is"] in printed
    assert written["failures"] == []
    assert list_left(tmp_path) == []


def test_two_processes_are_measured_against_one_where_there_are_cores_for_it(
    tmp_path: Path, capfd, monkeypatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = tmp_path / "figures.json"
    assert run_bench(["two_processes"], json_file=file, sizes=replace(TINY, cores_for_two=1_000)) == 0
    assert "two processes: not measured" in capfd.readouterr().out
    assert run_bench(["two_processes"], json_file=file, sizes=replace(TINY, cores_for_two=1, beat_s=0.2)) == 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [each["figure"] for each in written["figures"]] == ["claims, 4 at once", "heartbeats, 32 connections"]
    assert all(each["ours"] and each["limit"] for each in written["figures"])
    assert list_left(tmp_path) == []


@pytest.mark.long
async def test_a_bench_that_is_told_to_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    with (tmp_path / "output").open("wb") as output:
        bench = subprocess.Popen(
            [str(LABLINK), "bench", "launch"],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=output,
            stderr=output,
        )
    await until(lambda: any("postgres" in line for line in list_left(temporary)), what="its server's Postgres runs")
    bench.send_signal(signal.SIGTERM)
    await until(lambda: bench.poll() is not None, within_s=30, what="the bench ends")
    assert bench.returncode == 130, (tmp_path / "output").read_text()
    assert list_left(temporary) == []


def test_what_cannot_be_run_is_said_before_anything_starts(tmp_path: Path, capfd) -> None:
    assert run_bench(["swimming"]) == 2
    assert "claims, heartbeats, commands, agent, pages, first_page, arrivals, launch" in capfd.readouterr().err
    assert run_bench(["claims"], json_file=tmp_path / "nowhere" / "figures.json") == 2
    assert "nowhere" in capfd.readouterr().err


def test_an_error_answer_is_a_failure_and_slowness_is_none() -> None:
    slow = Load([Shot(201, b"{}", 60.0)], seconds=60.0)
    slow.check(201)
    with pytest.raises(BenchFailed, match="1 of 2 answers were not 201; the first: 503 away"):
        Load([*slow.shots, Shot(503, b"away", 0.1)]).check(201)


def test_a_percentile_is_a_value_that_was_seen() -> None:
    assert [percentile(range(1, 101), percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7.0


async def test_a_slow_link_carries_everything_and_no_faster_than_it_should() -> None:
    make_link = functools.partial(SlowLink, bits_per_s=8_000_000, round_trip_s=0.02)
    # To connect, to ask, and then 100 kB at a megabyte a second; clocks may differ by a millisecond.
    assert await time_bytes(make_link, 100_000) >= 0.02 + 0.01 + 0.1 + 0.01 - 0.001


async def test_answers_over_one_connection_do_not_wait_for_each_others_acknowledgement(shared_server: Server) -> None:
    # Nagle's delay, were it on, would cost 40 ms an answer.
    began = time.monotonic()
    load = await drive(shared_server.port, [request("GET", "/healthz")] * 100, at_once=1)
    load.check(200)
    assert time.monotonic() - began < 2.0


def list_left(directory: Path) -> list[str]:
    """What still runs from, or lies about in, the directory for temporary files that a bench was given."""
    processes = psutil.process_iter(["cmdline", "environ"])
    lines = [" ".join(each.info["cmdline"] or []) for each in processes if str(directory) in str(each.info)]
    return lines + [str(path) for path in directory.glob("lablink-bench-*")]
