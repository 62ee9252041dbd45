"""Figures for Prometheus: who may read them, what their labels may be, and that dashboard and alerts name real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from backend.services.alarms import list_open_alarms
from tests.harness.pools import database_of, make_pool
from tests.harness.server import API_TOKEN, Server
from tests.harness.waiting import until
from tests.web.conftest import METRICS_TOKEN

MONITORING = Path(__file__).parents[2] / "docs/monitoring"
# `le`: the edges of a histogram's buckets, which are constants.
LABELS = {"pool", "status", "route", "method", "code", "le"}
EMAIL = "somebody.in.line@lab.example"


async def scrape(server: Server, token: str | None = METRICS_TOKEN) -> tuple[int, str]:
    async with server.client(token=token) as client:
        answer = await client.get("/metrics")
    return answer.status_code, answer.text


@pytest.fixture(scope="module")
async def output(web_server: Server) -> str:
    """What a scrape gets after some traffic."""
    await make_pool(web_server, "metered")
    async with web_server.client(token=API_TOKEN) as client:
        await client.post("/api/request_vm", json={"email": EMAIL, "pool": "metered"})
        for path in ("/nowhere/at/all", "/api/admin/operations/4711", "/login", "/api/admin/budgets"):
            await client.get(path)
        put = await client.put("/api/admin/budgets/metered", json={"dollars": 5.0})
        assert put.status_code == 200
        await client.request("BREW", "/login")

    async def nobody_looks() -> str:
        status, text = await scrape(web_server)
        assert (status, "lablink_pages 0.0" in text) == (200, True)
        return text

    # Pages of tests before this one may be on their way out.
    return await until(nobody_looks, within_s=60, what="their pages have gone")


async def test_only_a_token_reads_metrics_and_the_one_for_metrics_reads_nothing_else(
    web_server: Server, shared_server: Server
) -> None:
    assert (await scrape(web_server, None))[0] == 401
    assert (await scrape(web_server, METRICS_TOKEN[:-1] + "x"))[0] == 401
    assert (await scrape(web_server, API_TOKEN))[0] == 200
    async with web_server.client(token=METRICS_TOKEN) as client:
        assert (await client.get("/api/admin/instances")).status_code == 401
    # Where nobody has switched them on there are none, whoever asks.
    assert (await scrape(shared_server, API_TOKEN))[0] == 404


async def test_labels_are_bounded_and_name_no_person_machine_or_id(output: str) -> None:
    families = list(text_string_to_metric_families(output))
    samples = [sample for family in families for sample in family.samples]
    assert {label for sample in samples for label in sample.labels} <= LABELS
    values = {value for sample in samples for name, value in sample.labels.items() if name != "le"}
    assert not [value for value in values if "@" in value or re.search(r"\d{3}", value)]
    assert {sample.labels["method"] for sample in samples if "method" in sample.labels} <= {
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "other",
    }  # fmt: skip
    assert EMAIL not in output


async def test_what_happened_is_counted_under_the_templates_of_routes(output: str) -> None:
    counted = {
        (sample.labels["route"], sample.labels["code"]): sample.value
        for family in text_string_to_metric_families(output)
        for sample in family.samples
        if sample.name == "lablink_http_requests_total"
    }
    assert counted["/api/admin/operations/{operation_id}", "4xx"] >= 1
    assert counted["/api/request_vm", "2xx"] >= 1
    assert 'lablink_line{pool="metered"} 1.0' in output
    assert 'lablink_claims{pool="metered",status="waiting"} 1.0' in output
    assert "lablink_pages 0.0" in output


async def test_every_metric_that_the_dashboard_and_the_alerts_name_is_in_the_output(output: str) -> None:
    exists = {sample.name for family in text_string_to_metric_families(output) for sample in family.samples}
    dashboard = json.loads((MONITORING / "grafana.json").read_text())
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"][0]["rules"]
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["name"] == "pool"]
    asked += [rule["expr"] for rule in rules]
    named = {name for each in asked for name in re.findall(r"\b(?:lablink|process)_\w+", each)}
    assert len(named) > 15
    assert named - exists == set()
    labels = {label for each in asked for label in re.findall(r"(\w+)(?:=~|!~|!=|=)\"", each)}
    assert labels <= LABELS | {"job"}
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(rule["annotations"]["summary"] and rule["annotations"]["description"] for rule in rules)


async def test_a_line_of_ten_rings_on_a_running_server(web_server: Server) -> None:
    pool = await make_pool(web_server, "crowded")
    async with web_server.client(token=API_TOKEN) as client:
        for number in range(10):
            answer = await client.post("/api/request_vm", json={"email": f"p{number}@lab.org", "pool": pool})
            assert answer.status_code == 202
        async with database_of(web_server) as db:

            async def rings() -> bool:
                return pool in {alarm.pool for alarm in await list_open_alarms(db)}

            await until(rings, what="the sweep has seen the line")

    async def is_counted() -> bool:
        return 'lablink_alarms{status="open"} 0.0' not in (await scrape(web_server))[1]

    await until(is_counted, what="the alarm is in the metrics")
