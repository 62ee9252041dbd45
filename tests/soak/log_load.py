"""Logs of many machines at once, by hand: ``python -m tests.soak.log_load [MACHINES [LINES_PER_S [SECONDS]]]``.

Prints what was stored, what the server and its Postgres took of the processor, and how long a line was on its way from
the agent's post to an open page.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil
from playwright.async_api import Page, async_playwright

from tests.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.harness.agents import HandAgent, join
from tests.harness.pages import visit
from tests.harness.pools import database_of
from tests.harness.server import Server, gather_all

# As agents ship.
EVERY_S = 0.4
LINE = "step {number}: loss 0.6931, 214 images/s, GPU 0 at 71 °C, learning rate 3e-4, next checkpoint in 41 s"
WATCH = """() => {
  window.lags = [];
  new MutationObserver((changes) => {
    for (const change of changes) for (const node of change.addedNodes) {
      const found = /probe (\\d+)/.exec(node.textContent || "");
      if (found) window.lags.push(Date.now() - Number(found[1]));
    }
  }).observe(document.querySelector(".log"), { childList: true, subtree: true });
}"""


async def main(machines: int = 50, lines_per_s: int = 100, seconds: int = 30) -> None:
    """Starts a server, floods it, and prints the figures."""
    with tempfile.TemporaryDirectory(prefix="log-load-") as directory:
        server = await Server(Path(directory) / "home", f"pool.default.max={machines + 10}").start()
        try:
            async with async_playwright() as playwright, server.client() as client:
                agents = await join(server, client, machines)
                browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_FLAGS))
                person = await (await visit(browser, server)).sign_in()
                page = await person.go(f"/admin/instances/{agents[0].hostname}")
                await page.evaluate(WATCH)
                await _measure(server, agents, page, lines_per_s, seconds)
                await browser.close()
        finally:
            await server.close()


async def _measure(server: Server, agents: list[HandAgent], page: Page, lines_per_s: int, seconds: int) -> None:
    quiet = await _usage(server, 5)
    began, used = time.monotonic(), _cpu_s(server)
    answers_s: list[float] = []
    sent = sum(await gather_all(*(_flood(agent, lines_per_s, seconds, answers_s) for agent in agents)))
    took_s, used = time.monotonic() - began, _cpu_s(server) - used
    lags = sorted(await page.evaluate("window.lags"))
    async with database_of(server) as db, db.transaction() as session:
        query = "SELECT sum(last_seq)::bigint FROM vm_log_sources WHERE source = 'workload'"
        stored = (await (await session.connection()).exec_driver_sql(query)).scalar()
    print(f"{sent} lines sent and {stored} stored in {took_s:.1f} s: {sent / took_s:.0f} lines/s")
    print(f"server with Postgres: {used / took_s:.0%} of one core ({quiet:.0%} while nothing was sent)")
    print(f"answers: median {median(answers_s) * 1_000:.0f} ms, slowest {max(answers_s) * 1_000:.0f} ms")
    print(f"from post to page: median {median(lags):.0f} ms, slowest of {len(lags)}: {lags[-1]:.0f} ms")


async def _flood(agent: HandAgent, lines_per_s: int, seconds: int, answers_s: list[float]) -> int:
    seq, end, count = 1, time.monotonic() + seconds, int(lines_per_s * EVERY_S)
    while (began := time.monotonic()) < end:
        now_ms = int(time.time() * 1_000)
        lines = [LINE.format(number=number) for number in range(seq, seq + count - 1)] + [f"probe {now_ms}"]
        body = {"source": "workload", "lines": lines, "stream": "load", "first_seq": seq,
                "ats_ms": [now_ms] * count, "sent_at_ms": now_ms}  # fmt: skip
        answer = await agent.client.post("/api/logs", json=body, headers=agent.headers)
        assert answer.status_code == 200, answer.text
        answers_s.append(time.monotonic() - began)
        seq += count
        await asyncio.sleep(max(0.0, EVERY_S - (time.monotonic() - began)))
    return seq - 1


async def _usage(server: Server, seconds: float) -> float:
    used = _cpu_s(server)
    await asyncio.sleep(seconds)
    return (_cpu_s(server) - used) / seconds


def _cpu_s(server: Server) -> float:
    """Processor seconds of the server and all it started, so far."""
    assert server.process is not None
    (postmaster,) = server.home.rglob("postmaster.pid")
    ours: set[psutil.Process] = set()
    for pid in (server.process.pid, int(postmaster.read_text().split()[0])):
        ours |= {psutil.Process(pid), *psutil.Process(pid).children(recursive=True)}
    return sum(sum(each.cpu_times()[:2]) for each in ours)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
