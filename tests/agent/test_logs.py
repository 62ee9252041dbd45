from __future__ import annotations

import io
import json
import logging
import threading
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.client import Client, ServerAway
from agent.logs import BATCH, BATCH_BYTES, HEAD, MAX_LINE, TAIL, BufferHandler, LogBuffer, ship
from agent.outside_logs import BOOT, WORKLOAD, follow_container, ship_boot
from agent.program import LONGEST, read_lines
from agent.spool import LIMIT_BYTES
from tests.agent.tiny_server import Fault, TinyServer
from tests.harness.waiting import until


def drain(buffer: LogBuffer) -> list[str]:
    """Every line, as a server gets them."""
    return [text for _, _, text in drain_numbered(buffer)]


def drain_numbered(buffer: LogBuffer) -> list[tuple[str, int, str]]:
    lines: list[tuple[str, int, str]] = []
    while batches := buffer.take_round():
        for batch in batches:
            first = batch.lines[0].seq
            assert [line.seq for line in batch.lines] == list(range(first, first + len(batch.lines)))
            lines += [(batch.source, line.seq, line.text) for line in batch.lines]
            buffer.note_receipt(batch)
    return lines


def test_while_the_server_is_away_the_beginning_and_the_end_are_kept_and_the_gap_is_told() -> None:
    buffer = LogBuffer()
    for number in range(1, 10_001):
        buffer.add("startup", str(number))
        if number == 5_000:
            # Somebody tries, and nobody answers.
            buffer.take_round()
    lines = drain_numbered(buffer)
    assert [line[:2] for line in lines[:HEAD]] == [("startup", number) for number in range(1, HEAD + 1)]
    kept = [number for _, number, _ in lines]
    assert kept[-TAIL:] == list(range(10_001 - TAIL, 10_001))
    assert len(kept) <= BATCH + HEAD + TAIL
    # What is missing shows in the numbers: no line bears another's.
    assert all(text == str(number) for _, number, text in lines)


def test_a_flood_costs_no_more_than_its_room_and_pushes_nothing_else_out() -> None:
    buffer = LogBuffer()
    buffer.add("agent", "the agent's own line")
    for number in range(50_000):
        buffer.add("workload", f"flood {number}")
    assert len(buffer) <= 1 + HEAD + 2 * TAIL
    batches = buffer.take_round()
    assert [(batch.source, len(batch.lines)) for batch in batches] == [("agent", 1), ("workload", BATCH)]
    buffer.note_receipt(batches[0])
    buffer.note_receipt(batches[1])
    assert drain(buffer)[-1] == "flood 49999"


def test_secrets_are_struck_out_before_anything_is_cut() -> None:
    buffer = LogBuffer(("the-token", ""))
    buffer.secrets.add("another")
    buffer.add("startup", "x" * (MAX_LINE - 4) + "the-token and another")
    buffer.add("startup", "x" * 7_996 + "the-token")
    assert drain(buffer) == ["x" * (MAX_LINE - 4) + "[sec", "x" * MAX_LINE]


def test_a_text_of_several_lines_becomes_several_lines() -> None:
    buffer = LogBuffer()
    handler = BufferHandler(buffer)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(logging.LogRecord("agent", logging.INFO, "", 0, "first\nsecond", None, None))
    buffer.add("agent", "")
    assert drain(buffer) == ["first", "second", ""]


def test_lines_are_read_whatever_bytes_they_are_of_and_endless_ones_in_part() -> None:
    token = b"secret-token"
    endless = b"x" * (LONGEST - 6) + token + b"y" * 3 * LONGEST
    lines = list(read_lines(io.BytesIO(b"plain\r\n\xff\xfe\n" + endless + b"\nlast")))
    assert [lines[0], lines[1], lines[3]] == ["plain", "\N{REPLACEMENT CHARACTER}" * 2, "last"]
    assert set(lines[2]) == {"x"}


def test_a_batch_is_of_one_source_and_no_larger_than_a_server_takes() -> None:
    buffer = LogBuffer()
    for _ in range(BATCH + 5):
        buffer.add("a", "short")
    buffer.add("b", "é" * MAX_LINE)
    for _ in range(20):
        buffer.add("b", "\N{GRINNING FACE}" * MAX_LINE)
    batches = []
    while round_ := buffer.take_round():
        batches += round_
        for batch in round_:
            buffer.note_receipt(batch)
    assert [len(batch.lines) for batch in batches if batch.source == "a"] == [BATCH, 5]
    assert sum(len(batch.lines) for batch in batches if batch.source == "b") == 21
    assert max(len(json.dumps(batch.as_body(buffer.stream))) for batch in batches) <= BATCH_BYTES + 20_000


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.sampled_from(["add", "add", "take", "lose"]) | st.integers(1, 1_900), max_size=30))
def test_nothing_is_lost_or_turned_round_however_often_the_server_is_away(steps: list[str | int]) -> None:
    buffer, number = LogBuffer(), 0
    had: dict[int, str] = {}
    for step in steps:
        if step in {"take", "lose"}:
            for batch in buffer.take_round():
                # It may have arrived although nobody heard of it.
                had |= {line.seq: line.text for line in batch.lines}
                if step == "take":
                    buffer.note_receipt(batch)
        else:
            for _ in range(1 if step == "add" else int(step)):
                number += 1
                buffer.add("startup", str(number))
        assert len(buffer) <= BATCH + HEAD + 2 * TAIL
    rest = drain_numbered(buffer)
    assert [line[1] for line in rest] == sorted({line[1] for line in rest})
    had |= {seq: text for _, seq, text in rest}
    assert all(text == str(seq) for seq, text in had.items())
    if number:
        assert number in had
    if number <= HEAD:
        assert len(had) == number


def test_lines_that_could_not_be_sent_are_sent_later_and_refused_ones_are_let_go(server: TinyServer) -> None:
    server.agent_tokens = ["token"]
    client, buffer = Client(server.url, "token"), LogBuffer()
    for line in ("first", "second"):
        buffer.add("startup", line)
    server.faults["/api/logs"] = Fault(503)
    with pytest.raises(ServerAway):
        ship(buffer, client)
    buffer.add("startup", "third")
    ship(buffer, client)
    # The very same again, so that a server which had it knows it; then what came meanwhile.
    body = server.of("/api/logs")[-1].body
    assert (body["source"], body["lines"], body["first_seq"]) == ("startup", ["first", "second"], 1)
    assert len(body["ats_ms"]) == 2
    assert buffer.filled.is_set()
    ship(buffer, client)
    assert server.of("/api/logs")[-1].body["lines"] == ["third"]
    assert {each.body["stream"] for each in server.of("/api/logs")} == {buffer.stream}
    buffer.add("startup", "too much")
    server.faults["/api/logs"] = Fault(413)
    ship(buffer, client)
    assert len(buffer) == 0


def test_an_agent_that_was_killed_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "logs.spool"
    first = LogBuffer(("the-token",), spool=path)
    for number in range(1, 4):
        first.add("workload", f"line {number}", mark=f"at {number}")
    (sent,) = first.take_round()
    first.note_receipt(sent)
    first.add("workload", "line 4 with the-token", mark="at 4")
    first.take_round()
    first.add("workload", "line 5", mark="at 5")
    assert path.stat().st_mode & 0o777 == 0o600
    assert "the-token" not in path.read_text()
    # Killed: half a line was written, and of one batch nobody knows whether it arrived.
    with path.open("a") as file:
        file.write('["workload",9')
    second = LogBuffer(spool=path)
    assert second.stream == first.stream
    assert second.filled.is_set()
    assert second.find_mark("workload") == "at 5"
    second.add("workload", "line 6")
    assert drain_numbered(second) == [
        ("workload", 4, "line 4 with [secret]"),
        ("workload", 5, "line 5"),
        ("workload", 6, "line 6"),
    ]
    third = LogBuffer(spool=path)
    assert not third.filled.is_set()
    third.add("workload", "line 7")
    assert drain_numbered(third) == [("workload", 7, "line 7")]


def test_what_is_kept_on_disk_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "logs.spool"
    buffer = LogBuffer(spool=path)
    for _ in range(4):
        for number in range(HEAD + TAIL):
            buffer.add("workload", f"{number} " + "x" * 2_000)
        buffer.take_round()
    for batch in buffer.take_round():
        buffer.note_receipt(batch)
    assert path.stat().st_size < LIMIT_BYTES
    numbers = [number for _, number, _ in drain_numbered(LogBuffer(spool=path))]
    assert numbers[-1] == 4 * (HEAD + TAIL)
    drain(buffer)
    assert path.stat().st_size < 1_000


async def test_the_containers_own_output_is_followed_and_never_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'echo "2026-01-01T10:00:00.000000001Z first"; echo "2026-01-01T10:00:01.500000000Z second ERROR"\n'
        'echo "Error: from docker itself"; [ -e again ] || exec sleep 600\n'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    buffer, asked = LogBuffer(spool=tmp_path / "logs.spool"), tmp_path / "asked"
    for _ in range(2):
        stopping, since = threading.Event(), len(asked.read_text().splitlines()) if asked.exists() else 0
        thread = threading.Thread(target=follow_container, args=("work", buffer, tmp_path, stopping))
        thread.start()
        await until(lambda before=since: asked.exists() and len(asked.read_text().splitlines()) > before, every_s=0.01)
        await until(lambda: buffer.find_mark(WORKLOAD) == "2026-01-01T10:00:01.500000000Z", every_s=0.01)
        stopping.set()
        thread.join()
    first, second = asked.read_text().splitlines()
    assert first == "logs --follow --timestamps --tail 1000 work"
    assert second == "logs --follow --timestamps --since 2026-01-01T10:00:01.500000000Z work"
    (batch,) = buffer.take_round()
    assert [line.text for line in batch.lines] == ["first", "second ERROR"]
    assert [line.at_ms for line in batch.lines] == [1_767_261_600_000, 1_767_261_601_500]


def test_cloud_inits_phases_and_last_lines_are_shipped_once_in_a_boot(tmp_path: Path) -> None:
    status, output = tmp_path / "status.json", tmp_path / "output.log"
    phases = {"init": {"start": 10.0, "finished": 11.5, "errors": []},
              "modules-final": {"start": 12, "finished": 15, "errors": ["no such package"]}}  # fmt: skip
    status.write_text(json.dumps({"v1": {"datasource": "x", "stage": None, **phases}}))
    output.write_bytes(b"".join(b"line %d \xff\n" % number for number in range(1_000)))
    buffer = LogBuffer()
    for boot_id in ("boot-1", "boot-1", "boot-2"):
        ship_boot(status, output, buffer, boot_id, threading.Event())
    lines = defaultdict(list)
    for source, _, text in drain_numbered(buffer):
        lines[source].append(text)
    assert lines[BOOT][:2] == ["init: done after 1.5 s", "ERROR modules-final: failed after 3.0 s: no such package"]
    assert lines[BOOT].count("init: done after 1.5 s") == 2
    assert lines[BOOT][201] == "line 999 \N{REPLACEMENT CHARACTER}"
    # A machine that was made otherwise has none of it.
    ship_boot(tmp_path / "none", tmp_path / "none", buffer, "boot-1", threading.Event())
    assert len(drain(buffer)) == 1
