"""Spans: one trace from a request to the last step that came of it; nothing in them that opens a seat; off, nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.otel import ANSWER_S, OtelTracing
from backend.request_ids import resume_request
from backend.spans import nothing, record_span, span, tracing_by
from tests.harness.collector import Collector
from tests.harness.pools import make_pool
from tests.harness.server import Server, free_port
from tests.harness.waiting import until

LAUNCH, CLAIM = "launch-4bf92f3577b34da6", "claim-4bf92f3577b34da6"
# A request's own span ends after its answer: none of these need be the last.
OF_LAUNCH = ("operation launch", "terraform init", "terraform plan", "terraform apply")
OF_CLAIM = ("POST /api/request_vm", "command prepare_session", "POST /api/commands/{command_id}")
ENDING = "a-link-that-opens-a-seat-and-must-not-be-told"


async def test_a_trace_leads_from_the_request_to_the_operations_steps_and_the_agents_command(
    web_server: Server, collector: Collector
) -> None:
    pool = await make_pool(web_server, "spans")
    made = await web_server.api.post(
        "/api/admin/create", json={"pool": pool, "count": 1}, headers={"X-Request-ID": LAUNCH}
    )
    await web_server.until_status(made.json()["hostnames"], "available")
    # Its last steps lock the machine, and who comes in that moment is put in line first.
    await web_server.until_operation_ends(made.json()["operation_id"])
    async with web_server.client() as client:
        body = {"email": "ada@spans.org", "pool": pool}
        claimed = await client.post("/api/request_vm", json=body, headers={"X-Request-ID": CLAIM})
        assert claimed.status_code == 201
        await client.get(f"/seat/open/{ENDING}")

    def has_come() -> bool:
        came = {(each.get("lablink.request_id"), each["name"]) for each in collector.spans()}
        missing = {*((LAUNCH, name) for name in OF_LAUNCH), *((CLAIM, name) for name in OF_CLAIM)} - came
        assert not missing, (missing, came)
        return "GET /seat/open/{link}" in {name for _, name in came}

    await until(has_come, what="the spans have come")
    spans = collector.spans()
    launch = {each["name"]: each for each in spans if each.get("lablink.request_id") == LAUNCH}
    steps = [launch[f"terraform {step}"] for step in ("init", "plan", "apply")]
    operation = launch["operation launch"]
    assert (operation["lablink.operation_status"], operation["lablink.pool"]) == ("succeeded", pool)
    assert {each["parent"] for each in steps} == {operation["id"]}
    assert len({each["trace"] for each in launch.values()}) == 1
    claim = {each["name"]: each for each in spans if each.get("lablink.request_id") == CLAIM}
    asked, command = claim["POST /api/request_vm"], claim["command prepare_session"]
    assert (asked["http.response.status_code"], asked["trace"]) == (201, command["trace"])
    assert (command["lablink.command_status"], command["took_s"] > 0) == ("succeeded", True)
    # The agent's own request with the result is of the same trace.
    assert claim["POST /api/commands/{command_id}"]["trace"] == asked["trace"]
    assert operation["trace"] != asked["trace"]
    said = b"".join(collector.bodies)
    assert not [each for each in (ENDING, "ada@spans.org", claimed.json()["seat_url"]) if each.encode() in said]
    assert "GET /api/commands" not in {each["name"] for each in spans}


def sample(collector: Collector, sample_pct: float, number: int) -> list[dict[str, Any]]:
    with tracing_by(OtelTracing(collector.url, sample_pct=sample_pct)):
        for each in range(number):
            resume_request(f"sampled-{each:06d}")
            with span("work", {}):
                pass
    resume_request(None)
    return [each for each in collector.spans() if each["name"] == "work"]


def test_a_part_of_all_traces_is_sent_and_what_fails_tells_its_kind_alone(collector: Collector) -> None:
    assert 0 < len(sample(collector, 25, 400)) < 200
    with tracing_by(OtelTracing(collector.url, sample_pct=100)):
        with pytest.raises(ValueError, match="secret"), span("doomed", {}):
            raise ValueError("a secret of somebody")
        at = datetime.now(UTC)
        record_span("over", {}, began_at=at, ended_at=at, has_failed=True)
    doomed, over = (next(each for each in collector.spans() if each["name"] == name) for name in ("doomed", "over"))
    assert (doomed["has_failed"], doomed["error.type"], over["has_failed"]) == (True, "ValueError", True)
    assert b"a secret of somebody" not in b"".join(collector.bodies)


def test_a_collector_that_is_away_holds_nobody_up() -> None:
    began = time.monotonic()
    with tracing_by(OtelTracing(f"http://127.0.0.1:{free_port()}", sample_pct=100)), span("unheard", {}):
        pass
    assert time.monotonic() - began < ANSWER_S + 5


def test_off_nothing_of_it_is_imported_and_nothing_is_done() -> None:
    assert span("work", {}) is nothing
    program = (
        "import sys, backend.api.request_log; from backend.spans import sending_spans, span\n"
        "with sending_spans(None), span('work', {}):\n"
        "    print([each for each in sys.modules if each.startswith('opentelemetry.sdk')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
