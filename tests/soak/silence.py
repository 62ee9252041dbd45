"""silence: agents are killed, stopped and cut off, and one comes back with a wrong clock; the pages say the truth.

With the server's own figures, so it takes as long as it takes: what a person sees is never older than two heartbeats
and a second.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence

from playwright.async_api import Page, async_playwright, expect

from agent.session import find_session, list_sessions
from agent.store import Store
from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.agents import make_tokens
from tests.harness.machines import Machine
from tests.harness.pages import Visitor, visit
from tests.harness.screens import LARGE, claim, enter, shows
from tests.harness.server import Server, gather_all
from tests.harness.waiting import until
from tests.harness.wire import Wire
from tests.soak.rounds import Round, Scenario

INTERVAL_S, CUT_S, CLOCK_S = 20, 600.0, 600.0
TRUE_WITHIN_S = 2 * INTERVAL_S + 1
# A condition is over once it has been gone for so long.
SETTLE_S = 60
SILENT, CLOCK = "Unreachable", "Clock wrong"
LOOK_S = 5.0
WORK = "work"


async def play(game: Round, cut_s: float = CUT_S) -> None:
    """Three machines: one dies, one hangs, one is cut off under its researcher."""
    server = Server(game.directory / "home", f"agent.heartbeat_interval_s={INTERVAL_S}", "pool.default.terminal=true")
    machines: list[Machine] = []
    try:
        await server.start()
        async with async_playwright() as playwright, Wire(server.port) as wire:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
            tokens = iter(await make_tokens(server, 3))

            async def add(name: str, url: str) -> Machine:
                machines.append(Machine(game.directory, name, server_url=url, token=next(tokens)).boot())
                await server.until_status([name], "available")
                return machines[-1]

            cut = await add("cut-off", wire.url)
            ada = await visit(browser, server, viewport=LARGE)
            assert await claim(ada) == cut.hostname
            await enter(ada.page, f"x=$$; while sleep 1; do date >> ~/{WORK}; done &")
            dead, hung = await add("dead", server.url), await add("hung", server.url)
            admin = await (await visit(browser, server, viewport=LARGE)).sign_in()
            story = _Story(game, server, await admin.go("/admin/instances"))
            await story.strike(dead, hung, wire)
            await story.come_back(dead, hung)
            await story.serve_while_cut(cut, cut_s)
            await story.mend(cut, wire, ada)
            assert admin.errors == []
            await browser.close()
        assert await server.stop() == 0
    finally:
        for each in machines:
            each.close()
        await server.close()


class _Story:
    """What happens to the machines, and what the admin's page, which stays open, says of each."""

    def __init__(self, game: Round, server: Server, page: Page) -> None:
        self._game, self._server, self._page = game, server, page
        self._cut_at = 0.0

    async def strike(self, dead: Machine, hung: Machine, wire: Wire) -> None:
        """Each right after a heartbeat: so nobody can know of it for the longest time."""

        async def strike(hostname: str, how: Callable[[], None]) -> None:
            await self._beats(hostname)
            how()
            await self._says(hostname, SILENT)

        def cut() -> None:
            wire.cut()
            self._cut_at = time.monotonic()

        await gather_all(
            strike(dead.hostname, lambda: dead.send(signal.SIGKILL)),
            strike(hung.hostname, lambda: hung.send(signal.SIGSTOP)),
            strike("cut-off", cut),
        )
        self._game.say("killed, stopped and cut off: the page says so of each")

    async def come_back(self, dead: Machine, hung: Machine) -> None:
        """The killed one with a clock that is wrong, by luck ahead or behind; and then with the right one."""
        dead.break_(clock_s=self._game.luck.choice((-CLOCK_S, CLOCK_S)))
        dead.start()
        hung.send(signal.SIGCONT)
        back = (self._says_no_more(hung.hostname, SILENT), self._says_no_more(dead.hostname, SILENT))
        await gather_all(*back, self._says(dead.hostname, CLOCK))
        self._game.say("back, one with a clock that is ten minutes wrong: the page says so")
        dead.send(signal.SIGKILL)
        dead.break_()
        dead.start()
        await self._says_no_more(dead.hostname, CLOCK, within_s=TRUE_WITHIN_S + SETTLE_S)
        self._game.say("its clock is right again: the page says so")

    async def serve_while_cut(self, cut: Machine, cut_s: float) -> None:
        """Cut off for long, and within its grace: its session goes on, and nothing is done to it."""
        while (left_s := self._cut_at + cut_s - time.monotonic()) > 0:
            vm = (await self._server.list_vms())[cut.hostname]
            assert (vm["status"], vm["email"]) == ("in-use", "ada@lab.org"), vm
            await self._works(cut)
            await asyncio.sleep(min(LOOK_S, left_s))
        self._game.say(f"cut off for {cut_s:.0f} s; it still serves its researcher, and nothing was done to it")

    async def mend(self, cut: Machine, wire: Wire, ada: Visitor) -> None:
        """The same seat and the same shell, and the page says that all is well."""
        wire.mend()
        await self._says_no_more(cut.hostname, SILENT)
        await ada.sees_status("seat-status", "active")
        await expect(ada.page.get_by_test_id("seat-hostname")).to_have_text(cut.hostname)
        await ada.page.get_by_test_id("seat-connect").click()
        await enter(ada.page, 'test "$x" = $$ && echo "the same" shell')
        await shows(ada.page, "the same shell", within_s=30)
        await self._works(cut)
        assert cut.boots == 1
        self._game.say("mended: the same seat, the same shell, and the page says so")

    async def _beats(self, hostname: str) -> None:
        """Waits for the next heartbeat."""

        async def last() -> str:
            return str((await self._server.list_vms())[hostname]["last_heartbeat_at"])

        before = await last()

        async def is_another() -> bool:
            return await last() != before

        await until(is_another, within_s=2 * INTERVAL_S, what=f"{hostname} beats")

    async def _says(self, hostname: str, words: str) -> None:
        row = self._page.get_by_test_id(f"vm-{hostname}")
        await expect(row).to_contain_text(words, timeout=TRUE_WITHIN_S * 1_000)

    async def _says_no_more(self, hostname: str, words: str, within_s: float = TRUE_WITHIN_S) -> None:
        row = self._page.get_by_test_id(f"vm-{hostname}")
        await expect(row).not_to_contain_text(words, timeout=within_s * 1_000)

    async def _works(self, cut: Machine) -> None:
        """What the researcher left running writes on."""
        before = _sizes(cut)
        await until(lambda: _sizes(cut) > before, what="the session goes on")


def _sizes(machine: Machine) -> Sequence[int]:
    store = Store(machine.home)
    found = [find_session(store, claim_id, machine.hostname) for claim_id in list_sessions(store)]
    works = [session.home / WORK for session in found if session]
    return [path.stat().st_size for path in works if path.exists()]


SILENCE = Scenario("silence", 1, "agents killed, stopped, cut off for 10 min, a wrong clock; pages say the truth", play)
