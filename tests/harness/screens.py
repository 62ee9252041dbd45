"""Terminals as people see them: on the seat's page, in a real browser."""

from __future__ import annotations

from playwright.async_api import Page, expect

from tests.harness.pages import Visitor

# So large that what a test counts stays on the screen.
LARGE = {"width": 1440, "height": 1000}
# What the terminal in front shows, row by row.
ROWS = """() => {
  const screen = [...document.querySelectorAll(".terminal-screen")].find((each) => each.offsetParent);
  return [...screen.querySelectorAll(".xterm-rows > div")].map((row) => row.textContent.trimEnd());
}"""


async def claim(visitor: Visitor, email: str = "ada@lab.org", pool: str = "default") -> str:
    """From the link over the click to the prompt; returns the machine's name."""
    await visitor.go(f"/join/{pool}")
    await visitor.page.get_by_test_id("claim-email").fill(email)
    await visitor.page.get_by_test_id("claim-submit").click()
    await shows(visitor.page, ":~$")
    return await visitor.page.get_by_test_id("seat-hostname").inner_text()


async def shows(page: Page, *words: str, testid: str = "seat-terminal", within_s: float = 30) -> None:
    """Waits until the terminal in front shows these words."""
    for each in words:
        await expect(page.get_by_test_id(testid)).to_contain_text(each, timeout=within_s * 1_000)


async def enter(page: Page, line: str) -> None:
    """Types a line into the terminal that has the focus."""
    await page.keyboard.type(line)
    await page.keyboard.press("Enter")
