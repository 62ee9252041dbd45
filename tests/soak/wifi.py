"""wifi: the network of a page goes away in the middle of a running command, for as long as a lecture hall's may."""

from __future__ import annotations

import asyncio

from playwright.async_api import Page, async_playwright, expect

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.pages import visit
from tests.harness.screens import LARGE, ROWS, claim, enter, shows
from tests.harness.server import Server
from tests.harness.wire import Wire
from tests.soak.rounds import Round, Scenario

LONGEST_S, LINE_S = 20.0, 0.05


async def play(game: Round, cuts: int = 3) -> None:
    """One shell and some cuts, the last one of them the longest."""
    lengths_s = [*(game.luck.uniform(0.5, LONGEST_S) for _ in range(cuts - 1)), LONGEST_S]
    server = Server(game.directory / "home")
    try:
        await server.start()
        _, names = await server.launch(1)
        await server.until_status(names, "available")
        async with async_playwright() as playwright, Wire(server.port) as wire:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
            person = await visit(browser, wire, viewport=LARGE)  # type: ignore[arg-type]
            await claim(person)
            for seconds in lengths_s:
                await survive_a_cut(person.page, wire, seconds=seconds)
                game.say(f"nothing is missing after a cut of {seconds:.1f} s")
            await browser.close()
        assert await server.stop() == 0
    finally:
        await server.close()


async def survive_a_cut(page: Page, wire: Wire, *, seconds: float) -> None:
    """A seat's page whose network goes away for a while in the middle of a running command.

    Raises:
        AssertionError: it is another shell, or something of the output is missing.
    """
    last = round((seconds + 2) / LINE_S)
    await page.get_by_test_id("seat-connect").click()
    # What is left of the cut before must not be taken for what is to come.
    await page.keyboard.press("Control+l")
    await expect(page.get_by_test_id("seat-terminal")).not_to_contain_text(",over")
    await enter(page, f"x=$$; for i in $(seq {last}); do printf '%s,' $i; sleep {LINE_S}; done; echo o''ver")
    await shows(page, ",20,")
    wire.cut()
    # Nothing but time makes an outage of this length.
    await asyncio.sleep(seconds)
    assert f",{last}," not in "".join(await page.evaluate(ROWS)), "the cut came too late"
    wire.mend()
    await shows(page, ",over", within_s=30)
    whole = "".join(await page.evaluate(ROWS))
    assert "".join(f"{number}," for number in range(1, last + 1)) in whole, whole
    await page.get_by_test_id("seat-connect").click()
    await enter(page, 'test "$x" = $$ && echo "the same" shell')
    await shows(page, "the same shell")


WIFI = Scenario("wifi", 5, "three cuts of up to 20 s while a command runs; the same shell, nothing missing", play)
