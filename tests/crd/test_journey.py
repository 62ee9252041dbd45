"""From Google's line to a desktop, in a real browser, with a real server, a real agent and the imitation."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect
from sqlalchemy import text

from agent import leftovers
from agent.session import USERS_HOMES
from tests.crd.conftest import Imitation
from tests.crd.pastes import HOSTILE, with_code
from tests.harness.agents import make_tokens
from tests.harness.imitation_start_host import HOST_ID
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server

_names = (f"desk{n}" for n in itertools.count())
Machine = Callable[[], Awaitable[tuple[str, Path]]]


@pytest.fixture
async def machine(shared_server: Server, tmp_path: Path, imitation: Imitation) -> AsyncIterator[Machine]:
    """Makes a pool that offers Chrome Remote Desktop, with one machine; returns its name and the agent's directory."""
    processes: list[subprocess.Popen[bytes]] = []
    homes: list[Path] = []

    async def start() -> tuple[str, Path]:
        pool = await make_pool(shared_server, next(_names), crd=True)
        (token,) = await make_tokens(shared_server, 1, pool)
        home = tmp_path / pool
        homes.append(home)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "LABLINK_ENROLMENT_TOKEN": token,
            "LABLINK_SERVER_URL": shared_server.url,
            "LABLINK_CRD_START_HOST": str(imitation.start_host),
        }
        with (tmp_path / f"{pool}.log").open("wb") as log:
            argv = [sys.executable, "-m", "agent", "--hostname", f"{pool}-001", "--home", str(home)]
            processes.append(subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        await shared_server.until_status([f"{pool}-001"], "available")
        return pool, home

    yield start
    for process in processes:
        process.kill()
        process.wait()
    imitation.close()
    for home in homes:
        assert leftovers.main(["remove", str(home)]) == 0


async def sit_down(browser: Browser, server: Server, pool: str, **options: object) -> Visitor:
    """Somebody with a seat."""
    person = await visit(browser, server, **options)
    await person.go(f"/join/{pool}")
    await person.page.get_by_test_id("claim-email").fill("ada@lab.org")
    await person.page.get_by_test_id("claim-submit").click()
    await person.page.wait_for_url("**/seat")
    await person.sees_status("seat-status", "active")
    return person


async def paste(person: Visitor, line: str) -> None:
    await person.page.get_by_test_id("crd-paste").fill(line)
    await person.page.get_by_test_id("crd-submit").click()


async def check_axe(person: Visitor) -> None:
    # What is just fading in or out has no contrast to speak of.
    await person.page.emulate_media(reduced_motion="reduce")
    found = await Axe().run(person.page, context={"exclude": [["#q-loading-bar"]]})
    assert found.violations_count == 0, found.generate_report()


def registrations(home: Path) -> set[Path]:
    """This machine's registered hosts: under its agent's home, or with users of their own where that is root."""
    found = {*home.rglob("host#*.json"), *USERS_HOMES.rglob("host#*.json")}
    return {path for path in found if f'"{home.name}-001"' in read_if_there(path)}


def read_if_there(path: Path) -> str:
    """Its text; none if another test's session, and all that was in it, has ended meanwhile."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


async def stored(server: Server) -> str:
    """All that the database holds, as text."""
    tables = ("claims", "commands", "events", "vm_logs", "operation_logs", "vms", "heartbeats")
    async with database_of(server) as db, db.transaction() as session:
        known = set(await session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")))
        assert {"claims", "commands", "events", "vm_logs"} <= known
        found = [
            await session.scalar(text(f"SELECT string_agg(t::text, ' ') FROM {name} t"))
            for name in tables
            if name in known
        ]
    return " ".join(part for part in found if part)


async def test_from_the_paste_to_the_desktop_each_step_live_and_nothing_left_after_the_seat(
    shared_server: Server, browser: Browser, machine: Machine, imitation: Imitation, tmp_path: Path
) -> None:
    pool, home = await machine()
    known = registrations(home)
    code = f"4/0Good_{pool}"
    ada = await sit_down(browser, shared_server, pool)
    page, detail = ada.page, ada.page.get_by_test_id("crd-detail")
    opener = page.get_by_test_id("crd-open")
    assert await opener.get_attribute("href") == "https://remotedesktop.google.com/headless"
    assert await opener.get_attribute("target") == "_blank"
    assert "noopener" in (await opener.get_attribute("rel") or "")
    await expect(page.get_by_test_id("crd-link")).to_be_hidden()
    await check_axe(ada)

    await paste(ada, code)
    await expect(page.get_by_test_id("crd-error")).to_contain_text("That is the code alone")
    await expect(page.get_by_test_id("crd-paste")).to_have_value(code)
    await check_axe(ada)

    imitation.hold("register")
    imitation.hold("start")
    await paste(ada, with_code(code).replace('"', "”").replace(" --", " —"))
    await expect(page.get_by_test_id("crd-error")).to_be_empty()
    await expect(page.get_by_test_id("crd-paste")).to_have_value("")
    await ada.sees_status("crd-status", "starting")
    await expect(detail).to_have_text("Your machine registers with Google.")
    await expect(page.get_by_test_id("crd-submit")).to_be_disabled()
    assert await detail.evaluate("(e) => !!e.closest('[role=status]')")
    await expect(page.get_by_test_id("crd-pin")).to_be_empty()
    await page.get_by_test_id("crd-pin-show").click()
    await expect(page.get_by_test_id("crd-pin")).to_have_text(re.compile(r"^\d{8}$"))
    pin = await page.get_by_test_id("crd-pin").inner_text()
    lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if pin in line]
    assert all("start-host" in line for line in lines if code in line)

    imitation.let_go("register")
    await expect(detail).to_have_text("Your machine starts the desktop.")
    imitation.let_go("start")
    await ada.sees_status("crd-status", "ready")
    link = page.get_by_test_id("crd-link")
    await expect(link).to_be_visible()
    assert await link.get_attribute("href") == f"https://remotedesktop.google.com/access/session/{HOST_ID}"
    await check_axe(ada)
    (registration,) = registrations(home) - known
    assert json.loads(registration.read_text())["host_secret_hash"].endswith(hashlib.sha256(pin.encode()).hexdigest())

    await page.get_by_test_id("seat-release").click()
    await page.get_by_test_id("confirm-submit").click()
    await shared_server.until_status([f"{pool}-001"], "available", within_s=20)
    assert imitation.processes() == []
    assert registrations(home) <= known
    assert [call["words"] for call in imitation.calls()] == [
        [f"--code={code}", "--redirect-url=https://remotedesktop.google.com/_/oauthredirect", f"--name={pool}-001"]
    ]
    written = await stored(shared_server) + shared_server.log.read_text() + (tmp_path / f"{pool}.log").read_text()
    written += (home / "commands.json").read_text()
    assert "Your machine registers with Google." in written
    assert code not in written
    assert pin not in written
    assert ada.errors == []


async def test_a_code_that_has_expired_is_said_at_once_and_the_next_one_works_on_a_phone(
    shared_server: Server, browser: Browser, machine: Machine, imitation: Imitation
) -> None:
    pool, _ = await machine()
    ada = await sit_down(browser, shared_server, pool, viewport={"width": 390, "height": 844}, has_touch=True)
    await paste(ada, with_code("4/0Expired_code"))
    error = ada.page.get_by_test_id("crd-error")
    await expect(error).to_contain_text("used before, or is some minutes old. Get a new one from Google")
    await ada.sees_status("crd-status", "failed")
    await check_axe(ada)
    assert await ada.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # By keyboard: from the field to the button.
    await ada.page.get_by_test_id("crd-paste").fill(with_code(f"4/0Fresh_{pool}"))
    await ada.page.get_by_test_id("crd-paste").press("Tab")
    await expect(ada.page.get_by_test_id("crd-submit")).to_be_focused()
    await ada.page.keyboard.press("Enter")
    await ada.sees_status("crd-status", "ready")
    await expect(error).to_be_empty()


async def test_nobody_else_reads_the_pin_or_the_link_or_pastes_and_a_hostile_paste_changes_nothing(
    shared_server: Server, browser: Browser, machine: Machine
) -> None:
    pool, _ = await machine()
    ada = await sit_down(browser, shared_server, pool)
    cookies = {each["name"]: each["value"] for each in await ada.context.cookies()}
    async with shared_server.client() as stranger, shared_server.client(cookies=cookies) as owner:
        owner.headers.update({"Origin": shared_server.url, "Content-Type": "application/json"})
        mine = (await owner.get("/api/seat/crd")).json()
        assert mine == {"status": None, "detail": None, "link": None, "pin": None}
        before = await count_commands(shared_server, pool)
        for name, (line, word) in HOSTILE.items():
            answer = await owner.post("/api/seat/crd_command", content=json.dumps({"crd_command": line}))
            assert answer.status_code == 422, name
            said = answer.json()["error"]["message"]
            assert any(each in said for each in word.split("|")) or name == "half a character", (name, said)
        assert await count_commands(shared_server, pool) == before
        assert (await owner.get("/api/seat/crd")).json() == mine

        good: dict[str, Any] = {"json": {"crd_command": with_code(f"4/0Api_{pool}")}}
        assert (await stranger.post("/api/seat/crd_command", **good)).status_code == 401
        elsewhere = {"Origin": "https://evil.example"}
        assert (await owner.post("/api/seat/crd_command", **good, headers=elsewhere)).status_code == 403
        accepted = await owner.post("/api/seat/crd_command", **good)
        assert accepted.status_code == 202
        pin = accepted.json()["pin"]
        await ada.sees_status("crd-status", "ready")
        claim_id = await scalar(shared_server, "SELECT max(id) FROM claims WHERE email = 'ada@lab.org'")
        await stranger.get("/")  # A browser of its own, with a cookie of its own.
        for path in ("/api/seat/crd", f"/api/seat/crd?claim={claim_id}"):
            refused = await stranger.get(path)
            assert refused.status_code == 401
            assert pin not in refused.text
        agent_token = {"Authorization": f"Bearer {(await make_tokens(shared_server, 1, pool))[0]}"}
        assert (await stranger.get("/api/seat/crd", headers=agent_token)).status_code == 401


async def count_commands(server: Server, pool: str) -> int:
    query = f"SELECT count(*) FROM commands JOIN vms ON vms.id = vm_id WHERE hostname = '{pool}-001'"
    return int(await scalar(server, query))


async def scalar(server: Server, query: str) -> Any:
    async with database_of(server) as db, db.transaction() as session:
        return await session.scalar(text(query))


async def test_a_browser_that_was_signed_out_shows_no_pin_and_takes_no_paste(
    shared_server: Server, browser: Browser, machine: Machine
) -> None:
    pool, _ = await machine()
    ada = await sit_down(browser, shared_server, pool)
    async with database_of(shared_server) as db, db.transaction() as session:
        await session.execute(text("UPDATE seat_browsers SET ended_at = now() WHERE ended_at IS NULL"))
    before = await count_commands(shared_server, pool)
    await expect(ada.page.get_by_test_id("crd-paste")).to_have_count(0)
    await expect(ada.page.get_by_test_id("crd-pin")).to_have_count(0)
    answer = await ada.context.request.post(
        f"{shared_server.url}/api/seat/crd_command",
        data={"crd_command": with_code(f"4/0Late_{pool}")},
        headers={"Origin": shared_server.url},
    )
    assert (answer.status, (await answer.json())["error"]["code"]) == (401, "no_seat")
    assert await count_commands(shared_server, pool) == before


@pytest.mark.long
async def test_a_host_that_does_not_end_keeps_its_machine_from_being_offered_again(
    shared_server: Server, browser: Browser, machine: Machine
) -> None:
    pool, home = await machine()
    known = registrations(home)
    ada = await sit_down(browser, shared_server, pool)
    await paste(ada, with_code(f"4/0Stubborn_{pool}"))
    await ada.sees_status("crd-status", "ready")
    await ada.page.get_by_test_id("seat-release").click()
    await ada.page.get_by_test_id("confirm-submit").click()
    vms = await shared_server.until_status([f"{pool}-001"], "failed", within_s=20)
    assert "Chrome Remote Desktop does not end" in vms[f"{pool}-001"]["reason"]
    assert registrations(home) <= known
