"""The launch page, the overview and the pool's state with a real (local) AWS behind them, and the same by API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from backend.services.aws_spec import AwsSpec
from tests.aws.test_ec2 import run_instance, state_of
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, LocalAws
from tests.harness.pages import Visitor, visit
from tests.harness.pools import make_pool
from tests.harness.server import Server
from tests.pages.test_every_state import examine

SERVER = "https://lablink.example.org"


@pytest.fixture(scope="module")
async def server(aws: LocalAws, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """A server with a pool on AWS. It works on no jobs: nothing is made here."""
    shut = ("jobs.in_process=false", "pool.default.terminal=false")
    settings = (*aws.settings, f"server.public_url={SERVER}", *shut)
    made = Server(tmp_path_factory.mktemp("launching") / "home", *settings, environment=CREDENTIALS)
    await made.start()
    spec = AwsSpec(ami=AMI_PARAMETER, instance_types=("g4dn.xlarge",), zones=("us-east-1a",))
    await make_pool(made, "gpu", provider="aws", providers=("aws",), max=5, aws=spec)
    wrong = AwsSpec(ami="ami-0123456789abcdef0", instance_types=("q9.mini",), zones=("us-east-1a",))
    await make_pool(made, "wrong", provider="aws", providers=("aws",), max=5, aws=wrong)
    yield made
    await made.close()


@pytest.fixture
async def admin(browser: Browser, server: Server) -> Visitor:
    return await (await visit(browser, server, reduced_motion="reduce")).sign_in_by_form()


async def test_the_page_says_what_it_costs_and_how_the_account_stands(admin: Visitor) -> None:
    page = await admin.go("/admin/create?pool=gpu")
    checks = page.get_by_test_id("launch-checks")
    # The local AWS knows no quotas of EC2: that line is a warning, as it is where the policy does not allow to read it.
    await expect(checks).to_have_attribute("data-status", "warning", timeout=30_000)
    await expect(checks).to_contain_text("account 123456789012")
    await expect(checks).to_contain_text("A dry run says that machines may be made.")
    await page.get_by_test_id("launch-count").fill("4")
    await page.get_by_test_id("launch-hours").fill("10")
    await expect(page.get_by_text("$21.04 for 10 hours")).to_be_visible()
    await expect(
        page.get_by_text("$0.53 per machine and hour (snapshot of AWS's list prices of 1 June 2025)")
    ).to_be_visible()
    assert await examine(page) == []


async def test_while_aws_takes_its_time_the_page_says_so_and_can_be_used(admin: Visitor, aws: LocalAws) -> None:
    with aws.paused():
        page = await admin.go("/admin/create?pool=gpu")
        checks = page.get_by_test_id("launch-checks")
        await expect(checks).to_have_attribute("data-status", "loading")
        await expect(checks).to_contain_text("Looking at the account")
        await expect(page.get_by_text("$0.53 per hour, $12.62 per day")).to_be_visible()
        await expect(page.get_by_test_id("launch-submit")).to_be_enabled()
        assert await examine(page) == []
    await expect(checks).to_have_attribute("data-status", "warning", timeout=30_000)


async def test_a_problem_stops_a_launch_until_it_is_acknowledged(admin: Visitor, server: Server) -> None:
    page = await admin.go("/admin/create?pool=wrong")
    checks = page.get_by_test_id("launch-checks")
    await expect(checks).to_have_attribute("data-status", "problem", timeout=30_000)
    await expect(checks).to_contain_text("q9.mini cannot be had in us-east-1a.")
    await page.get_by_test_id("launch-submit").click()
    await expect(page.get_by_test_id("launch-error")).to_contain_text("Something stands in the way")
    assert not [name for name in await server.list_vms() if name.startswith("wrong")]
    await page.get_by_test_id("launch-anyway").check()
    await page.get_by_test_id("launch-submit").click()
    await page.wait_for_url("**/admin/operations/*")
    # A pool without problems needs no acknowledgement.
    page = await admin.go("/admin/create?pool=default")
    await expect(checks).to_be_hidden()
    await expect(page.get_by_test_id("launch-anyway")).to_be_hidden()


async def test_preflight_and_costs_by_api_are_those_of_the_page(server: Server) -> None:
    answer = await server.api.post("/api/admin/preflight", json={"pool": "gpu", "count": 2, "hours": 3})
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert {each["name"] for each in said["checks"]} >= {"Credentials", "AMI", "Subnet addresses"}
    assert said["problem"] is None
    assert (said["cost"]["price_per_hour"], round(said["cost"]["planned"], 3)) == (0.526, 3.156)
    too_many = (await server.api.post("/api/admin/preflight", json={"pool": "gpu", "count": 9})).json()
    assert "Only 5 more fit" in too_many["problem"]
    assert (await server.api.post("/api/admin/preflight", json={"pool": "none", "count": 1})).status_code == 404
    local = (await server.api.post("/api/admin/preflight", json={"pool": "default", "count": 1})).json()
    assert local["checks"] == []
    assert (await server.api.post("/api/admin/create", json={"pool": "gpu", "count": 1})).status_code == 202
    costs = (await server.api.get("/api/admin/costs")).json()
    assert costs["pools"]["gpu"]["per_hour"] == 0.526
    assert costs["per_hour"] == sum(each["per_hour"] for each in costs["pools"].values())


async def test_a_stranger_shows_on_the_overview_and_is_taken_in_or_destroyed_by_its_button(
    admin: Visitor, aws: LocalAws, server: Server
) -> None:
    page = await admin.go("/admin")
    lost = await run_instance(aws, "lost-001", Server=SERVER, Pool="nowhere")
    theirs = await run_instance(aws, "lost-002", Server="https://theirs.example.org", Pool="nowhere")
    looked = await server.api.post("/api/admin/findings/look")
    assert looked.status_code == 200, looked.text
    assert [(each["kind"], each["subject"], each["mend"]) for each in looked.json()["findings"]] == [
        ("stranger", lost, "destroy")
    ]
    await expect(page.get_by_text("tagged as ours, but there is no pool 'nowhere'")).to_be_visible()
    assert await examine(page) == []
    await page.get_by_test_id(f"mend-stranger-{lost}").click()
    await page.get_by_test_id("confirm-submit").click()
    await expect(page.get_by_test_id(f"mend-stranger-{lost}")).to_have_count(0, timeout=20_000)
    assert await state_of(aws, lost, theirs) == ["terminated", "running"]
    assert (await server.api.get("/api/admin/findings")).json() == {"findings": []}
    assert admin.errors == []


async def test_a_state_is_downloaded_by_admins_alone_and_it_is_written_down(
    admin: Visitor, server: Server, tmp_path: Path
) -> None:
    pools = server.home / "pools"
    (pools / "2").mkdir(parents=True, exist_ok=True)
    (pools / "2" / "terraform.tfstate").write_text('{"version": 4, "resources": []}')
    (pools / "2" / "terraform.tfstate.1").write_text('{"version": 4}')
    listed = (await server.api.get("/api/admin/pools/gpu/states")).json()["states"]
    assert [(each["name"], each["is_current"]) for each in listed] == [
        ("terraform.tfstate", True),
        ("terraform.tfstate.1", False),
    ]
    taken = await server.api.get("/api/admin/pools/gpu/states/terraform.tfstate")
    assert taken.json() == {"version": 4, "resources": []}
    assert "attachment" in taken.headers["content-disposition"]
    for wrong in ("plan.out", "..%2f..%2fkeys", "terraform.tfstate.9"):
        assert (await server.api.get(f"/api/admin/pools/gpu/states/{wrong}")).status_code == 404
    page = await admin.go("/admin/pools/gpu/state")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download").first.click()
    assert "version" in Path(await (await download.value).path()).read_text()
    await admin.go("/admin/events")
    await expect(page.get_by_text("Terraform's state of pool gpu was downloaded").first).to_be_visible()
    assert await examine(await admin.go("/admin/pools/gpu/state")) == []
