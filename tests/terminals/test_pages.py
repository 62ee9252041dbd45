"""Terminals as people use them, in a real browser."""

from __future__ import annotations

import os
import re
import time

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.alone import Alone
from tests.harness.screens import LARGE, ROWS, claim, enter, shows
from tests.harness.waiting import until
from tests.harness.wire import Wire
from tests.soak.wifi import survive_a_cut
from tests.terminals.conftest import give_back

PHONE = {"width": 390, "height": 844}


async def check_axe(*pages: Page) -> None:
    for page in pages:
        # What is just fading in or out has no contrast to speak of.
        await page.emulate_media(reduced_motion="reduce")
        report = await Axe().run(page)
        assert report.violations_count == 0, report.generate_report()


async def test_one_click_leads_from_the_link_to_a_prompt_with_the_machines_name_within_two_seconds(
    lab, arrive, alone: Alone
) -> None:
    person = await arrive(lab)
    await person.go("/join/default")
    await person.page.get_by_test_id("claim-email").fill("ada@lab.org")
    async with alone():
        began = time.monotonic()
        await person.page.get_by_test_id("claim-submit").click()
        await person.page.wait_for_url("**/seat")
        await expect(person.page.get_by_test_id("seat-terminal")).to_contain_text(
            re.compile(r"@default-\d{3}:~\$"), timeout=5_000
        )
        assert time.monotonic() - began < 2
    hostname = await person.page.get_by_test_id("seat-hostname").inner_text()
    await shows(person.page, f"@{hostname}:~$")
    # Machines of this computer are told to be just that, once their agent has said how it keeps sessions apart.
    shared = "a user of its own there" if os.geteuid() == 0 else "does not isolate"
    await expect(person.page.get_by_test_id("terminal-notice")).to_contain_text(shared)
    await give_back(lab)
    await expect(person.page.get_by_test_id("seat-connect")).to_be_hidden()
    await expect(person.page.get_by_test_id("seat-terminal")).to_be_hidden()
    assert person.errors == []


async def test_tabs_typing_size_leaving_copying_and_closing_work_by_keyboard(lab, arrive) -> None:
    person = await arrive(lab, permissions=["clipboard-read", "clipboard-write"])
    await claim(person)
    page = person.page
    await page.get_by_test_id("seat-connect").focus()
    await page.keyboard.press("Enter")
    await enter(page, "x=one; echo ö€ 'two  words'")
    await shows(page, "ö€ two  words")
    await follows_the_window(page)
    # A loop of commands would not do: between two of them the key ends nothing.
    await enter(page, "echo rea''dy; cat")
    await shows(page, "ready")
    await enter(page, "said-again")
    await until(lambda: says(page, "said-again", times=2), what="it runs")
    await page.keyboard.press("Control+c")

    # Out of the terminal, to a new one and back, all by keyboard.
    await page.keyboard.press("Control+m")
    await expect(page.get_by_test_id("terminal-tab-1")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_test_id("terminal-new")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_test_id("terminal-tab-2")).to_have_attribute("data-status", "open")
    await shows(page, ":~$")
    await enter(page, 'echo "[$x]"')
    await shows(page, "[]")
    await page.keyboard.press("Control+m")
    await page.keyboard.press("ArrowLeft")
    await expect(page.get_by_test_id("terminal-tab-1")).to_have_attribute("aria-selected", "true")
    await page.keyboard.press("Enter")
    await enter(page, 'echo "[$x]"')
    await shows(page, "[one]")

    # Without a selection all that is on the screen is copied.
    await page.keyboard.press("Control+Shift+C")
    await until(lambda: page.evaluate("navigator.clipboard.readText().then((text) => text.includes('[one]'))"))
    await page.evaluate("navigator.clipboard.writeText('echo pasted-$x')")
    await page.get_by_role("button", name="Paste").click()
    await shows(page, "echo pasted-$x")
    await page.keyboard.press("Enter")
    await shows(page, "pasted-one")
    await check_axe(page)
    await enter(page, "exit 3")
    await expect(page.get_by_test_id("terminal-said")).to_contain_text("the shell has ended with status 3")
    await page.get_by_test_id("terminal-close").click()
    await expect(page.get_by_role("tab")).to_have_count(1)
    assert person.errors == []


async def follows_the_window(page: Page) -> None:
    """The shell knows its size, and a new one."""
    width = await ask_width(page)
    assert width > 80
    await page.set_viewport_size({"width": 700, "height": 900})

    async def is_narrower() -> bool:
        return 20 < await ask_width(page) < width

    await until(is_narrower, what="the shell knows its new size")
    await page.set_viewport_size(LARGE)


async def ask_width(page: Page) -> int:
    """What the shell takes for its width."""
    await enter(page, "clear; stty size")
    return await until(lambda: read_width(page), what="the shell knows its size")


async def read_width(page: Page) -> int:
    sizes = re.findall(r"^\d+ (\d+)$", "\n".join(await page.evaluate(ROWS)), re.MULTILINE)
    return int(sizes[-1]) if sizes else 0


async def says(page: Page, line: str, *, times: int) -> bool:
    return list(await page.evaluate(ROWS)).count(line) == times


async def test_over_a_cut_of_the_network_it_is_the_same_shell_with_nothing_missing(lab, arrive) -> None:
    async with Wire(lab.port) as wire:
        person = await arrive(wire)
        await claim(person)
        await survive_a_cut(person.page, wire, seconds=3)


async def test_a_dead_agent_is_said_and_a_new_terminal_opens_after_its_restart(lab, arrive) -> None:
    import psutil

    person = await arrive(lab)
    hostname = await claim(person)
    page = person.page
    psutil.Process(lab.vms.list_running()[hostname]).kill()
    await expect(page.get_by_test_id("terminal-said")).to_contain_text("Waiting for the machine")
    await until(lambda: hostname not in lab.vms.list_running())
    lab.vms.power_on(hostname)
    await expect(page.get_by_test_id("terminal-state")).to_have_attribute("data-status", "over")
    await expect(page.get_by_test_id("terminal-said")).to_contain_text("the agent of the machine was started again")
    await page.get_by_test_id("seat-connect").click()
    await expect(page.get_by_test_id("terminal-tab-2")).to_have_attribute("data-status", "open")
    await shows(page, ":~$")
    assert person.errors == []


async def test_an_organiser_helps_after_the_owner_agrees_and_both_see_it_until_the_owner_ends_it(lab, arrive) -> None:
    person, admin = await arrive(lab), await arrive(lab)
    hostname = await claim(person)
    await admin.sign_in()
    await admin.go(f"/admin/instances/{hostname}")
    await admin.page.get_by_test_id("watch-ask").click()
    await admin.sees_status("watch-state", "asked")
    await person.page.get_by_test_id("watch-refuse").click()
    await admin.sees_status("watch-state", "none")
    await expect(admin.page.get_by_test_id("watch-terminal")).to_have_count(0)
    await admin.page.get_by_test_id("help-ask").click()
    await expect(person.page.get_by_text("asks to help in your terminals")).to_be_visible()
    await check_axe(person.page)
    await person.page.get_by_test_id("watch-agree").click()
    await admin.sees_status("watch-state", "on")
    await expect(person.page.get_by_text("watches your terminals and may type in them")).to_be_visible()
    await shows(admin.page, f"@{hostname}:~$", testid="watch-terminal")
    await admin.page.get_by_test_id("watch-terminal").click()
    await enter(admin.page, "echo by-the-organiser")
    await shows(person.page, "by-the-organiser")
    await check_axe(admin.page)
    for page in (person.page, admin.page):
        await page.set_viewport_size(PHONE)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await person.page.get_by_test_id("watch-end").click()
    await admin.sees_status("watch-state", "none")
    await expect(admin.page.get_by_test_id("watch-terminal")).to_have_count(0)
    assert (person.errors, admin.errors) == ([], [])
