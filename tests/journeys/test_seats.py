"""A seat that is one's own, as people meet it: the code on the screen, the key, the other browser, the end of time."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect
from sqlalchemy import text

from backend.services.actor import Actor
from backend.services.admission import set_access
from backend.services.join_codes import CodeLimits, rotate_code
from backend.states import Access
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of
from tests.harness.server import Server, gather_all
from tests.harness.workshops import workshop

ADMIN = Actor.admin("test")


@pytest.fixture(scope="module")
async def known(shared_server: Server, chromium: Browser) -> AsyncIterator[list[Visitor]]:
    """An admin who is signed in, and two people."""
    visitors = [await visit(chromium, shared_server) for _ in range(3)]
    await visitors[0].sign_in()
    yield visitors
    for each in visitors:
        await each.context.close()


@pytest.fixture
async def admin(known: list[Visitor]) -> Visitor:
    """The admin, at an empty page."""
    await known[0].page.goto("about:blank")
    known[0].errors.clear()
    return known[0]


@pytest.fixture
async def people(known: list[Visitor]) -> list[Visitor]:
    """Two people who were never here."""
    return await gather_all(*(each.forget() for each in known[1:]))


async def claim(person: Visitor, path: str, email: str = "") -> None:
    """Claims with the keyboard alone."""
    await person.go(path)
    if email:
        await expect(person.page.get_by_test_id("claim-email")).to_be_focused()
        await person.page.keyboard.type(email)
        await person.page.keyboard.press("Enter")
    else:
        await person.page.get_by_test_id("claim-submit").press("Enter")
    await person.page.wait_for_url("**/seat")
    await person.page.wait_for_function("window.did_handshake")


async def check_axe(person: Visitor) -> None:
    """No violations; in the dark, colours alone are looked at again. Here for what tests/pages/states.py lacks."""
    # Quasar's own bar flits over a page that has just loaded.
    context = {"exclude": [["#q-loading-bar"]]}
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        await person.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = await Axe().run(person.page, context=context, options=options)
        assert found.violations_count == 0, found.generate_report()


async def test_code_claim_key_shown_once_another_browser_by_key_and_signed_out_again(
    shared_server: Server, people: list[Visitor]
) -> None:
    ada, eve = people
    async with workshop(shared_server, 1) as (pool, _):
        async with database_of(shared_server) as db:
            await set_access(db, pool, Access.CODE, actor=ADMIN)
            code = (await rotate_code(db, pool, CodeLimits(), actor=ADMIN)).code
        await ada.go("/")
        await ada.page.get_by_test_id("join-code").fill(f" {code.lower().replace('-', '')} ")
        await ada.page.get_by_test_id("join-submit").press("Enter")
        await ada.page.wait_for_url(f"**/join/{pool}?code={code}")
        await ada.page.wait_for_function("window.did_handshake")
        await expect(ada.page.get_by_test_id("claim-code")).to_have_value(code)
        await ada.page.get_by_test_id("claim-email").fill("ada@lab.org")
        await ada.page.get_by_test_id("claim-submit").press("Enter")
        await ada.page.wait_for_url("**/seat")
        await ada.sees_status("seat-status", "active")
        shown = ada.page.get_by_test_id("seat-key")
        key = await shown.inner_text()
        assert len(key) == 19
        await ada.go("/seat")
        await expect(ada.page.get_by_test_id("seat-new-key")).to_be_visible()
        await expect(shown).to_have_count(0)

        # Who knows the e-mail and even the code gets neither this seat nor a second one, and learns nothing of it.
        await claim_in_vain(eve, f"/join/{pool}?code={code}", "ada@lab.org", "already has a seat", pool)
        await eve.go("/seat")
        await eve.page.get_by_test_id("seat-key-field").fill("0000-0000-0000-0000")
        await eve.page.get_by_test_id("seat-key-submit").click()
        await expect(eve.page.get_by_test_id("seat-key-error")).to_contain_text("opens no seat")
        await eve.page.get_by_test_id("seat-key-field").fill(key)
        await eve.page.get_by_test_id("seat-key-submit").press("Enter")
        await eve.sees_status("seat-status", "active")

        # The first one sees it at once, and ends it: the other page is gone within a second.
        browsers = ada.page.get_by_test_id("seat-browsers").get_by_role("listitem")
        await expect(browsers).to_have_count(2)
        await check_axe(ada)
        await ada.page.get_by_test_id("seat-sign-out-others").click()
        began = time.monotonic()
        await expect(eve.page.get_by_role("heading", name="Signed out")).to_be_visible()
        assert time.monotonic() - began < 1.0
        await expect(browsers).to_have_count(1)
        await ada.page.get_by_test_id("seat-new-key").click()
        await expect(shown).not_to_have_text(key)
        assert ada.errors == []


async def claim_in_vain(person: Visitor, path: str, email: str, said: str, secret: str) -> None:
    await person.go(path)
    await person.page.get_by_test_id("claim-email").fill(email)
    await person.page.get_by_test_id("claim-submit").click()
    error = person.page.get_by_test_id("claim-error")
    await expect(error).to_contain_text(said)
    assert f"{secret}-0" not in await error.inner_text()


async def test_a_page_left_open_after_a_sign_out_can_do_nothing(shared_server: Server, people: list[Visitor]) -> None:
    ada, _ = people
    async with workshop(shared_server, 2) as (pool, _):
        await claim(ada, f"/join/{pool}", "ada@lab.org")
        await ada.sees_status("seat-status", "active")
        # The page never learns of it: its way away is barred, as it would be for a page held on purpose.
        await ada.page.evaluate("window.open = () => null")
        await ada.page.get_by_test_id("seat-move").click()
        async with database_of(shared_server) as db, db.transaction() as session:
            await session.execute(text("UPDATE seat_browsers SET ended_at = now() WHERE ended_at IS NULL"))
        await ada.page.get_by_test_id("confirm-submit").click()
        await expect(ada.page.get_by_text("You hold no such seat here")).to_be_visible()
        assert [vm["status"] for vm in (await shared_server.list_vms()).values() if vm["pool"] == pool].count(
            "in-use"
        ) == 1


async def test_roster_uploaded_with_bad_lines_then_a_personal_link_to_a_seat(
    shared_server: Server, admin: Visitor, people: list[Visitor]
) -> None:
    ada, phone = people
    async with workshop(shared_server, 2) as (pool, _):
        await admin.go(f"/admin/pools/{pool}")
        await admin.page.get_by_test_id("pool-access").select_option("roster")
        await admin.page.get_by_test_id("pool-access-save").click()
        content = b"\xef\xbb\xbfE-mail;Name\r\nada@lab.org;Ada\r\nnobody\r\nbob@lab.org;Bob\r\n"
        chosen = {"name": "class.csv", "mimeType": "text/csv", "buffer": content}
        await admin.page.get_by_test_id("roster-file").set_input_files(chosen)
        await admin.page.get_by_test_id("roster-check").click()
        await expect(admin.page.get_by_text("Line 3: 'nobody' is not an e-mail address.")).to_be_visible()
        await expect(admin.page.get_by_test_id("roster-ada@lab.org")).to_have_count(0)
        await admin.page.get_by_test_id("roster-import").click()
        await expect(admin.page.get_by_test_id("roster-answer")).to_contain_text("2 added")
        await admin.page.get_by_test_id("roster-ada@lab.org").get_by_role("checkbox").check()
        await admin.page.get_by_test_id("vm-action-link").click()
        links = admin.page.get_by_test_id("roster-links")
        await expect(links).to_contain_text("?me=")
        link = (await links.inner_text()).split()[-1]
        await check_axe(admin)

        await ada.go(f"/join/{pool}")
        await expect(ada.page.get_by_role("heading", name="You need your personal link")).to_be_visible()
        path = link.removeprefix(shared_server.url)
        await ada.go(path)
        await expect(ada.page.get_by_test_id("claim-email")).to_have_value("ada@lab.org")
        await claim(ada, path)
        await ada.sees_status("seat-status", "active")
        hostname = await ada.page.get_by_test_id("seat-hostname").inner_text()
        # The same person on the phone: the same seat.
        await claim(phone, path)
        await expect(phone.page.get_by_test_id("seat-hostname")).to_have_text(hostname)

        await admin.page.get_by_test_id("vm-action-reissue").click()
        await admin.page.get_by_test_id("confirm-submit").click()
        await expect(links).not_to_contain_text(link)
        await ada.go(path)
        await ada.page.wait_for_url("**/seat")
        stranger = await phone.forget()
        await stranger.go(path)
        await expect(stranger.page.get_by_text("not valid, or not any more")).to_be_visible()


async def test_from_the_line_to_a_seat_that_warns_before_its_end_and_stays_by_one_click(
    shared_server: Server, people: list[Visitor]
) -> None:
    ada, bob = people
    async with workshop(shared_server, 1, claim_duration_s=3_600) as (pool, _):
        await claim(ada, f"/join/{pool}", "ada@lab.org")
        await ada.sees_status("seat-status", "active")
        await claim(bob, f"/join/{pool}", "bob@lab.org")
        await bob.sees_status("seat-status", "waiting")
        # Said to who cannot see it: the place in line and the state stand in live regions.
        for testid in ("seat-position", "seat-status"):
            assert await bob.page.get_by_test_id(testid).evaluate("(e) => !!e.closest('[role=status]')")
        await expect(bob.page.get_by_test_id("seat-time")).to_be_hidden()
        await ada.page.get_by_test_id("seat-release").click()
        await ada.page.get_by_test_id("confirm-submit").click()
        await bob.sees_status("seat-status", "active")
        await expect(bob.page.get_by_test_id("seat-time")).to_contain_text("59 min")

        async with database_of(shared_server) as db, db.transaction() as session:
            soon = db.now() + timedelta(seconds=100)
            await session.execute(
                text("UPDATE claims SET ends_at = :soon WHERE email = 'bob@lab.org' AND status = 'active'"),
                {"soon": soon},
            )
        warning = bob.page.get_by_role("alert").filter(has_text="nearly over")
        await expect(warning).to_be_visible()
        await check_axe(bob)
        await bob.page.get_by_test_id("seat-extend").press("Enter")
        await expect(warning).to_be_hidden()
        await expect(bob.page.get_by_test_id("seat-time")).to_contain_text("59 min")
        assert bob.errors == []


@pytest.mark.long
async def test_a_seat_moves_to_another_machine_and_an_admin_makes_a_new_key(
    shared_server: Server, admin: Visitor, people: list[Visitor]
) -> None:
    ada, other = people
    async with workshop(shared_server, 2) as (pool, agents):
        await claim(ada, f"/join/{pool}", "ada@lab.org")
        await ada.sees_status("seat-status", "active")
        key = await ada.page.get_by_test_id("seat-key").inner_text()
        hostname = ada.page.get_by_test_id("seat-hostname")
        before = await hostname.inner_text()
        unwell = ada.page.get_by_test_id("seat-unwell")
        await expect(unwell).to_be_hidden()
        (ill,) = [agent for agent in agents if agent.hostname == before]
        await ill.beat(health="unhealthy", reasons=["the GPU is gone"])
        await unwell.get_by_role("link", name="move to another machine").click()
        await check_axe(ada)
        await ada.page.get_by_test_id("seat-move").click()
        await ada.page.get_by_test_id("confirm-submit").click()
        await expect(hostname).not_to_have_text(before)
        await ada.sees_status("seat-status", "active")
        await expect(unwell).to_be_hidden()
        await admin.go(f"/admin/instances/{await hostname.inner_text()}")
        await admin.page.get_by_test_id("vm-new-key").click()
        await admin.page.get_by_test_id("confirm-submit").click()
        fresh = await admin.page.get_by_test_id("seat-key").inner_text()
        assert len(fresh) == 19
        assert fresh != key
        await check_axe(admin)
        await other.go("/")
        for typed, wins in ((key, False), (fresh, True)):
            await other.page.get_by_test_id("join-code").fill(typed)
            await other.page.get_by_test_id("join-submit").click()
            if not wins:
                await expect(other.page.get_by_role("alert").filter(has_text="opens no seat")).to_be_visible()
        await other.page.wait_for_url("**/seat")
        await expect(other.page.get_by_test_id("seat-hostname")).to_have_text(await hostname.inner_text())


async def test_the_screen_shows_the_way_in_and_what_is_left_and_follows_the_code(
    shared_server: Server, admin: Visitor, people: list[Visitor]
) -> None:
    watcher, ada = people
    await watcher.context.add_cookies(await admin.context.cookies())
    async with workshop(shared_server, 2) as (pool, _):
        await watcher.go(f"/admin/pools/{pool}/screen")
        await expect(watcher.page.get_by_test_id("screen-link")).to_have_text(
            f"127.0.0.1:{shared_server.port}/join/{pool}"
        )
        await expect(watcher.page.get_by_test_id("screen-free")).to_have_text("2")
        await claim(ada, f"/join/{pool}", "ada@lab.org")
        await expect(watcher.page.get_by_test_id("screen-free")).to_have_text("1")
        await expect(watcher.page.get_by_test_id("screen-taken")).to_have_text("1")

        await admin.go(f"/admin/pools/{pool}")
        await admin.page.get_by_test_id("pool-access").select_option("code")
        await admin.page.get_by_test_id("pool-access-save").click()
        shown = admin.page.get_by_test_id("pool-code")
        await expect(shown).to_have_text(re.compile(r"^\w{4}-\w{4}$"))
        first = await shown.inner_text()
        await expect(watcher.page.get_by_test_id("screen-code")).to_have_text(first)
        await admin.page.get_by_test_id("pool-code-uses").fill("20")
        await admin.page.get_by_test_id("pool-code-limit").click()
        await expect(admin.page.get_by_test_id("pool-code-state")).to_contain_text("of 20")
        await admin.page.get_by_test_id("pool-code-rotate").click()
        await admin.page.get_by_test_id("confirm-submit").click()
        await expect(shown).not_to_have_text(first)
        await expect(watcher.page.get_by_test_id("screen-code")).to_have_text(await shown.inner_text())
        assert [admin.errors, watcher.errors] == [[], []]
