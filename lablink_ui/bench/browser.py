"""The browser of a measurement: the Chromium that is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Playwright, async_playwright

from lablink_ui.bench.figures import BenchFailed

# The headless shell draws the same with an eighth less work.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """A browser within the block.

    Raises:
        BenchFailed: there is none.
    """
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=_find_any(playwright), args=list(_FLAGS))
        try:
            yield browser
        finally:
            await browser.close()


def find_chromium() -> str | None:
    """The path of a Chromium that is named by CHROMIUM or on the PATH."""
    named = os.environ.get("CHROMIUM")
    return named if named and Path(named).exists() else next(filter(None, map(shutil.which, CHROMIUMS)), None)


def _find_any(playwright: Playwright) -> str:
    found = find_chromium() or playwright.chromium.executable_path
    if not Path(found).exists():
        raise BenchFailed("there is no Chromium; set CHROMIUM=/path/to/one, or run `playwright install chromium`")
    return found
