"""From a commit to the page that shows it, against the bare notice of the very same commit."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg
from playwright.async_api import Page

from lablink_ui.bench.browser import open_browser
from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, BenchFailed, Figure, Report
from lablink_ui.bench.light_pages import open_pages
from lablink_ui.bench.loadgen import percentile
from lablink_ui.bench.machines import POOL, join
from lablink_ui.bench.server import BenchServer, serve

PATH = "commit → DOM"
SEEN_WITHIN_S = 10.0
PAGE_MS = 30_000
SEED = 7
# In the page: when each change was in the DOM, by the browser's clock (this machine's, as ours is).
_WATCH = """() => {
  window.seen = {};
  window.watching?.disconnect();
  window.watching = new MutationObserver((records) => {
    const now = performance.timeOrigin + performance.now();
    for (const { target } of records) {
      const row = (target.closest ? target : target.parentElement)?.closest("tr[data-testid^=vm-]");
      const found = row && /change-(\\d+)@/.exec(row.textContent);
      if (found) window.seen[found[1]] ??= now;
    }
  });
  window.watching.observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
# A change that a page shows and no rule reacts to: the e-mail beside a machine.
_CHANGE = "UPDATE vms SET email = %s WHERE id = %s"
_NOTE = (
    "commit → DOM: one browser shows the table; the other pages are those of people who are about to claim. The read"
    " model tells pages at most 20 times a second, so that 0 to 50 ms of ours are that wait; the bare notice does not"
    " wait."
)


@dataclass(slots=True)
class _Changes:
    """When (seconds since 1970) each change was sent, when its bare notice came, and which VM changed last to what."""

    sent: dict[int, float] = field(default_factory=dict)
    noticed: dict[int, float] = field(default_factory=dict)
    latest: dict[int, int] = field(default_factory=dict)


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """Changes on an open table of machines, each committed on its own, by SQL.

    Raises:
        BenchFailed: there is no Chromium, or a change never reached the page.
    """
    # Nobody beats here: the machines must not be called unreachable meanwhile.
    settings = (f"pool.default.max={sizes.rows}", "agent.unreachable_after_s=3600")
    figures = []
    opened_at = time.monotonic()
    async with (
        serve(cores.server, *settings) as server,
        _open_table(server, sizes.rows) as page,
        open_pages(server.url, f"/join/{POOL}", sizes.open_pages),
    ):
        for turn, per_s in enumerate(sizes.changes_per_s):
            await page.evaluate(_WATCH)
            began = time.monotonic()
            # Rows go on showing what the turn before wrote: each has numbers of its own.
            numbers = range(turn * sizes.changes, (turn + 1) * sizes.changes)
            changes = await _commit_changes(server.database_url, numbers, per_s)
            seen = await _until_seen(page, numbers)
            figures += _compare(changes, seen, f"{sizes.rows} rows, {sizes.open_pages} pages, {per_s:.0f} changes/s")
            figures.append(server.lag(f"{PATH}, {per_s:.0f} changes/s", since=began))
        figures.append(server.pause(PATH, since=opened_at))
        figures.append(server.memory("server", f"{sizes.rows} machines, {sizes.open_pages} pages"))
    return Report(figures, [_NOTE])


def _compare(changes: _Changes, seen: Mapping[int, float], name: str) -> list[Figure]:
    ours = [1_000 * (seen[number] - sent) for number, sent in changes.sent.items()]
    bare = [1_000 * (changes.noticed[number] - sent) for number, sent in changes.sent.items()]
    return [
        Figure(
            PATH,
            f"p{percent}, {name}",
            MS,
            percentile(ours, percent),
            percentile(bare, percent),
            "the same commit's notice on a bare LISTEN",
        )
        for percent in (50, 95)
    ]


@asynccontextmanager
async def _open_table(server: BenchServer, rows: int) -> AsyncIterator[Page]:
    await join(server, rows)
    async with open_browser() as browser:
        page = await browser.new_page()
        await page.goto(f"{server.url}/login")
        await page.wait_for_function("window.did_handshake")
        await page.get_by_test_id("login-password").fill(server.password)
        await page.get_by_test_id("login-submit").click()
        await page.wait_for_url("**/admin")
        await page.goto(f"{server.url}/admin/instances")
        shown = f'document.querySelectorAll("tr[data-testid^=vm-]").length === {rows}'
        await page.wait_for_function(shown, timeout=PAGE_MS)
        yield page


async def _commit_changes(database_url: str, numbers: range, per_s: float) -> _Changes:
    changes, dice = _Changes(), random.Random(SEED)  # noqa: S311 - the same changes in every run
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as writer,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener,
    ):
        await listener.execute("LISTEN lablink")
        listening = asyncio.create_task(_note_notices(listener, changes))
        try:
            vms = [row[0] for row in await (await writer.execute("SELECT id FROM vms ORDER BY id")).fetchall()]
            for number in numbers:
                vm = vms[number % len(vms)]
                changes.latest[vm] = number
                changes.sent[number] = time.time()
                await writer.execute(_CHANGE, (f"change-{number}@bench.example", vm), prepare=True)
                await asyncio.sleep(dice.uniform(0.5, 1.5) / per_s)
            async with asyncio.timeout(SEEN_WITHIN_S):
                while len(changes.noticed) < len(numbers):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise BenchFailed(f"{len(numbers) - len(changes.noticed)} commits sent no notice") from None
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    return changes


async def _note_notices(listener: psycopg.AsyncConnection, changes: _Changes) -> None:
    async for notice in listener.notifies():
        now, body = time.time(), json.loads(notice.payload)
        for vm in body["ids"] if body["table"] == "vms" else ():
            if vm in changes.latest:
                changes.noticed.setdefault(changes.latest[vm], now)


async def _until_seen(page: Page, numbers: range) -> dict[int, float]:
    """When each change was in the DOM, in seconds since 1970."""
    end = time.monotonic() + SEEN_WITHIN_S
    seen: dict[int, float] = {}
    while time.monotonic() < end and not seen.keys() >= set(numbers):
        await asyncio.sleep(0.05)
        seen = {int(number): at / 1_000 for number, at in (await page.evaluate("window.seen")).items()}
    if missing := set(numbers) - seen.keys():
        raise BenchFailed(f"{len(missing)} of {len(numbers)} changes did not reach the page in {SEEN_WITHIN_S:.0f} s")
    return seen
