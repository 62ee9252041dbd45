from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.client import Client, ServerAway
from agent.logs import BATCH, BATCH_BYTES, HEAD, MAX_LINE, TAIL, BufferHandler, LogBuffer, ship
from tests.agent.tiny_server import Fault, TinyServer


def drain(buffer: LogBuffer) -> list[str]:
    lines: list[str] = []
    while (batch := buffer.take()) is not None:
        lines += batch[1]
    return lines


def test_while_the_server_is_away_the_beginning_and_the_end_are_kept_and_the_gap_is_told() -> None:
    buffer = LogBuffer()
    for number in range(10_000):
        buffer.add("startup", str(number))
    assert len(buffer) == HEAD + TAIL
    lines = drain(buffer)
    assert lines[:HEAD] == [str(number) for number in range(HEAD)]
    assert lines[HEAD] == f"[{10_000 - HEAD - TAIL} lines were dropped here while the server was away]"
    assert lines[HEAD + 1 :] == [str(number) for number in range(10_000 - TAIL, 10_000)]


def test_secrets_are_struck_out_before_anything_is_cut() -> None:
    buffer = LogBuffer(("the-token", ""))
    buffer.secrets.add("another")
    buffer.add("startup", "x" * (MAX_LINE - 4) + "the-token and another")
    assert drain(buffer) == ["x" * (MAX_LINE - 4) + "[sec"]


def test_a_text_of_several_lines_becomes_several_lines() -> None:
    buffer = LogBuffer()
    handler = BufferHandler(buffer)
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.emit(logging.LogRecord("agent", logging.INFO, "", 0, "first\nsecond", None, None))
    buffer.add("agent", "")
    assert drain(buffer) == ["first", "second", ""]


def test_a_batch_is_of_one_source_and_no_larger_than_a_server_takes() -> None:
    buffer = LogBuffer()
    for number in range(BATCH + 10):
        buffer.add("a" if number < BATCH + 5 else "b", "short")
    buffer.add("b", "é" * MAX_LINE)
    for _ in range(20):
        buffer.add("b", "\N{GRINNING FACE}" * MAX_LINE)
    batches = []
    while (batch := buffer.take()) is not None:
        batches.append(batch)
    assert [(source, len(lines)) for source, lines in batches[:2]] == [("a", BATCH), ("a", 5)]
    assert all(source == "b" for source, _ in batches[2:])
    assert sum(len(lines) for _, lines in batches[2:]) == 26
    sizes = [len(json.dumps({"source": source, "lines": lines})) for source, lines in batches]
    assert max(sizes) <= BATCH_BYTES + 100


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(st.sampled_from(["add", "add", "take", "lose"]) | st.integers(1, 900), max_size=30))
def test_nothing_is_lost_or_turned_round_however_often_the_server_is_away(steps: list[str | int]) -> None:
    buffer, number, taken = LogBuffer(), 0, []
    for step in steps:
        if step in {"take", "lose"}:
            batch = buffer.take()
            if batch and step == "lose":
                buffer.put_back(batch)
            elif batch:
                taken += batch[1]
        else:
            for _ in range(1 if step == "add" else int(step)):
                buffer.add("startup", str(number))
                number += 1
        assert len(buffer) <= HEAD + TAIL + max(TAIL, BATCH)
    taken += drain(buffer)
    numbers = [int(line) for line in taken if not line.startswith("[")]
    dropped = sum(int(line.split()[0][1:]) for line in taken if line.startswith("["))
    assert numbers == sorted(set(numbers))
    assert len(numbers) + dropped == number
    assert buffer.take() is None


def test_lines_that_could_not_be_sent_are_sent_later_and_refused_ones_are_let_go(server: TinyServer) -> None:
    server.agent_tokens = ["token"]
    client, buffer = Client(server.url, "token"), LogBuffer()
    for line in ("first", "second"):
        buffer.add("startup", line)
    server.faults["/api/logs"] = Fault(503)
    with pytest.raises(ServerAway):
        ship(buffer, client)
    assert buffer.filled.is_set()
    buffer.add("startup", "third")
    ship(buffer, client)
    assert server.of("/api/logs")[-1].body == {"source": "startup", "lines": ["first", "second", "third"]}
    buffer.add("startup", "too much")
    server.faults["/api/logs"] = Fault(413)
    ship(buffer, client)
    assert len(buffer) == 0
