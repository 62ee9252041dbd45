"""The first page over a slow link, against the time that its bytes alone take over the same link."""

from __future__ import annotations

import functools
from collections.abc import Callable

from playwright.async_api import BrowserContext

from lablink_ui.bench.browser import open_browser
from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import Figure, Report, S
from lablink_ui.bench.loadgen import percentile
from lablink_ui.bench.machines import POOL
from lablink_ui.bench.server import serve
from lablink_ui.bench.slow_link import SlowLink, time_bytes

PATH = "first page"
BITS_PER_S, ROUND_TRIP_S = 1_500_000, 0.150
PAGE_MS = 60_000
# In the page. The form is there and its button asks for a machine, for which it needs no socket; then there is one.
_USABLE = "() => window.lablinkClaim && document.querySelector('[data-testid=claim-submit]') && performance.now()"
_LIVE = "() => window.did_handshake && performance.now()"
_LIMIT_IS = "the same bytes in one piece over the same link"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """A workshop's page, from its address to a form that works: in a browser that was never here, and once more.

    Raises:
        BenchFailed: there is no Chromium.
    """
    make_link = functools.partial(SlowLink, bits_per_s=BITS_PER_S, round_trip_s=ROUND_TRIP_S)
    cold, warm = _Visits("cold"), _Visits("warm")
    async with serve(cores.server) as server, open_browser() as browser, make_link(server.port) as link:
        for _ in range(sizes.first_visits):
            context = await browser.new_context()
            for visits in (cold, warm):
                await visits.add(context, link)
            await context.close()
    note = (
        f"{PATH}: {BITS_PER_S / 1e6:g} Mbit/s, {1_000 * ROUND_TRIP_S:.0f} ms there and back; the middle one of"
        f" {sizes.first_visits} visits; {cold.kilobytes:.0f} kB came down cold and {warm.kilobytes:.0f} kB warm."
    )
    return Report([figure for visits in (cold, warm) for figure in await visits.figures(make_link)], [note])


class _Visits:
    """How long visits of one kind took (seconds), and the bytes that came down in each."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._usable_s: list[float] = []
        self._live_s: list[float] = []
        self._bytes: list[float] = []

    @property
    def kilobytes(self) -> float:
        return percentile(self._bytes, 50) / 1_000

    async def add(self, context: BrowserContext, link: SlowLink) -> None:
        before, page = link.carried["down"], await context.new_page()
        await page.goto(f"http://127.0.0.1:{link.port}/join/{POOL}", wait_until="commit", timeout=PAGE_MS)
        for looks_for, took_s in ((_USABLE, self._usable_s), (_LIVE, self._live_s)):
            # By the browser's own clock, from the moment at which the address was given.
            found = await page.wait_for_function(looks_for, timeout=PAGE_MS)
            took_s.append(await found.json_value() / 1_000)
        self._bytes.append(link.carried["down"] - before)
        await page.close()

    async def figures(self, make_link: Callable[[int], SlowLink]) -> list[Figure]:
        bare_s = await time_bytes(make_link, int(percentile(self._bytes, 50)))
        return [
            Figure(PATH, f"{self._kind}, until it {what}", S, percentile(took_s, 50), bare_s, _LIMIT_IS)
            for what, took_s in (("can be used", self._usable_s), ("is live", self._live_s))
        ]
