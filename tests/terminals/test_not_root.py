"""`lablink demo` by somebody who is not root, as on most laptops: terminals work, and say that they isolate nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.harness.pages import visit
from tests.harness.screens import LARGE, claim, enter, shows
from tests.harness.server import COMMAND, Server

# Where the tests run as root: a user that every system has. Python may lie where that one could not even reach it.
NOBODY = "nobody"
BY_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", "--regid=65534", "--clear-groups"),
    *("--inh-caps=+dac_override", "--ambient-caps=+dac_override"),
)


@pytest.fixture
async def demo() -> AsyncIterator[Server]:
    """A demo with one machine, all of it by a user who is not root."""
    # Not under the tests' own directory, which is closed to others.
    directory = Path(tempfile.mkdtemp(prefix="lablink-demo-"))
    directory.chmod(0o755)
    home, program, environment = directory / "home", COMMAND, {}
    home.mkdir()
    if os.geteuid() == 0:
        shutil.chown(home, NOBODY)
        program, environment = (*BY_NOBODY, *COMMAND), {"HOME": str(home), "USER": NOBODY, "LOGNAME": NOBODY}
    server = Server(home, verb="demo", environment=environment, program=program, is_first=True)
    try:
        await server.start()
        _, names = await server.launch(1)
        await server.until_status(names, "available")
        yield server
    finally:
        await server.api.aclose()
        # It ends all of its own: its machines and its Postgres as well.
        assert await server.stop() == 0
        shutil.rmtree(directory)


@pytest.mark.long
async def test_without_root_a_terminal_works_and_says_that_it_isolates_nothing(demo: Server, browser: Browser) -> None:
    person = await visit(browser, demo, viewport=LARGE)
    hostname = await claim(person)
    page, me = person.page, pwd.getpwuid(psutil.Process(demo.vms.list_running()[hostname]).uids().effective).pw_name
    assert me != "root"
    await shows(page, f"{me}@{hostname}:~$")
    await expect(page.get_by_test_id("terminal-notice")).to_contain_text("This terminal does not isolate")
    found = await Axe().run(page, context={"exclude": [["#q-loading-bar"]]})
    assert found.violations_count == 0, found.generate_report()
    await page.get_by_test_id("seat-connect").click()
    await enter(page, "echo $((6 * 7))-$(id -un); touch ~/mine; setsid sleep 4327 &")
    await shows(page, f"42-{me}")
    homes = demo.home / "vms" / hostname / "home" / "sessions"
    assert len(list(homes.glob("*/home/mine"))) == 1
    await page.get_by_test_id("seat-release").click()
    await page.get_by_test_id("confirm-submit").click()
    await demo.until_status([hostname], "available")
    assert list(homes.glob("*")) == []
    assert not [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [""])[-1] == "4327"]
    assert person.errors == []
