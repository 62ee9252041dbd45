"""A spot machine that is taken away: its researcher is warned in time, and nobody else gets it."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect

from agent import leftovers
from backend.provisioning.agent_package import agent_package
from backend.provisioning.boot import Boot, render_user_data
from backend.services.events import list_events
from tests.harness.agents import make_tokens
from tests.harness.imitation_imds import ImitationImds
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of
from tests.harness.server import Server

NOTICE_MS = 15_000
ARTIFACTS = Path(__file__).parents[1] / "artifacts"


@pytest.fixture
def imds() -> Iterator[ImitationImds]:
    made = ImitationImds()
    yield made
    made.close()


@pytest.fixture
async def server(
    start_server: Callable[..., Awaitable[Server]], imds: ImitationImds, tmp_path: Path
) -> AsyncIterator[Server]:
    """A server with one machine of its pool: a real agent on what it takes for a spot machine."""
    made = await start_server()
    (token,) = await make_tokens(made, 1)
    home = tmp_path / "spot-001"
    home.mkdir()
    with (tmp_path / "agent.log").open("wb") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "agent", "--hostname", "spot-001", "--home", str(home)],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(home),
                "LABLINK_SERVER_URL": made.url,
                "LABLINK_ENROLMENT_TOKEN": token,
                "LABLINK_SPOT_METADATA_URL": imds.url,
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    await made.until_status(["spot-001"], "available")
    yield made
    agent.kill()
    agent.wait()
    leftovers.main(["remove", str(home)])


async def test_the_researcher_is_warned_and_nobody_else_gets_the_machine(
    server: Server, imds: ImitationImds, browser: Browser, tmp_path: Path
) -> None:
    ada = await take_seat(await visit(browser, server, reduced_motion="reduce"))
    warning = ada.page.get_by_test_id("seat-interruption")
    await expect(warning).to_be_hidden()
    imds.interrupt(datetime.now(UTC) + timedelta(seconds=115))
    await expect(warning).to_be_visible(timeout=NOTICE_MS)
    await expect(warning).to_have_role("alert")
    await expect(warning).to_contain_text("The cloud takes this machine away")
    left = ada.page.get_by_test_id("seat-interruption-left")
    await expect(left).to_have_text(re.compile(r"It ends in (1 min|\d+ s)\."))
    assert (await server.list_vms())["spot-001"]["health"] == "unhealthy"
    await check_looks(ada.page)

    # Given back, it goes to nobody: whoever comes waits.
    await ada.page.get_by_test_id("seat-release").click()
    await ada.page.get_by_test_id("confirm-submit").click()
    await server.until_status(["spot-001"], "failed")
    async with server.client() as client:
        bob = await client.post("/api/request_vm", json={"email": "bob@lab.org", "pool": "default"})
        assert bob.status_code == 202, bob.text
        # AWS keeps it after all.
        imds.withdraw()
        await server.until_status(["spot-001"], "in-use")
    async with database_of(server) as db:
        (event,) = [each for each in await list_events(db) if each.kind == "vm.interruption"]
    assert re.fullmatch(r"The cloud takes spot-001 away at \d\d:\d\d:\d\d UTC", event.message)
    assert imds.refused == 0


async def check_looks(page: Page) -> None:
    """Fit for everybody, in both themes, on a phone and on a desk; pictures are kept."""
    ARTIFACTS.mkdir(exist_ok=True)
    sizes = {"wide": {"width": 1320, "height": 880}, "phone": {"width": 390, "height": 844}}
    for (size, viewport), theme in itertools.product(sizes.items(), ("light", "dark")):
        await page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        await page.set_viewport_size(viewport)
        found = await Axe().run(page)
        assert [each["id"] for each in found.response["violations"]] == [], (size, theme)
        await page.screenshot(path=ARTIFACTS / f"seat-interrupted-{size}-{theme}.png", full_page=True)


async def take_seat(person: Visitor) -> Visitor:
    page = await person.go("/join/default")
    await page.get_by_test_id("claim-email").fill("ada@lab.org")
    await page.get_by_test_id("claim-submit").click()
    await page.wait_for_url("**/seat")
    await person.sees_status("seat-status", "active")
    return person


def test_only_a_spot_machine_is_told_to_look_for_its_end() -> None:
    boot = {"hostname": "gpu-001", "server_url": "https://x.example.org", "enrolment_token": "t"}
    spot, other = (render_user_data(Boot(**boot, agent=agent_package(), is_spot=each)) for each in (True, False))
    assert "\nspot=1\n" in spot
    assert "\nspot=''\n" in other
