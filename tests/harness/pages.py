"""Pages as people use them, in a real browser."""

from __future__ import annotations

from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.harness import forms
from tests.harness.server import PASSWORD, Server


class Visitor:
    """One person's browser on one server."""

    def __init__(self, server: Server, context: BrowserContext, page: Page) -> None:
        self.server, self.context, self.page = server, context, page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    async def go(self, path: str) -> Page:
        """Opens a page and waits until it is alive (filling a field before that would be lost)."""
        await self.page.goto(self.server.url + path)
        await self.page.wait_for_function("window.did_handshake")
        return self.page

    async def sign_in(self) -> Visitor:
        """Signs in as the admin without a look at the form: to draw it, and the page after it, is what costs."""
        async with self.server.client() as client:
            await forms.sign_in(client)
            held = {cookie.name: cookie.value or "" for cookie in client.cookies.jar}
        await self.context.add_cookies([{"name": name, "value": held[name], "url": self.server.url} for name in held])
        return self

    async def sign_in_by_form(self) -> Visitor:
        """Signs in as people do; over HTTPS alone, cookies are for browsers."""
        await self.go("/login")
        await self.page.get_by_test_id("login-password").fill(PASSWORD)
        await self.page.get_by_test_id("login-submit").click()
        await self.page.wait_for_url(f"{self.server.url}/admin")
        return self

    async def forget(self) -> Visitor:
        """Makes this somebody who was never here, but for our files: to read them anew is most of a first visit."""
        await self.page.goto(self.server.url + "/healthz")
        await self.page.evaluate("localStorage.clear(); sessionStorage.clear()")
        await self.page.goto("about:blank")
        await self.context.clear_cookies()
        await self.page.emulate_media()
        self.errors.clear()
        return self

    async def sees_status(self, testid: str, *statuses: str, within_s: float = 30) -> None:
        """Waits until an element carries one of these states."""
        selector = ", ".join(f'[data-testid="{testid}"][data-status="{status}"]' for status in statuses)
        await expect(self.page.locator(selector)).to_have_count(1, timeout=within_s * 1_000)


async def visit(browser: Browser, server: Server, **options: object) -> Visitor:
    """A new person with a browser of their own."""
    context = await browser.new_context(**options)  # type: ignore[arg-type]
    return Visitor(server, context, await context.new_page())
