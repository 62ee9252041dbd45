"""What the console says of healing, and the click that lets it go on."""

from __future__ import annotations

from playwright.async_api import expect

from tests.harness.pages import Visitor
from tests.pages.conftest import Place, connect

STOPPED = "UPDATE healing_breakers SET opened_at = now(), reason = 'no room', trial_at = now() + interval '1 h'"


async def test_a_click_lets_a_pool_be_mended_again_and_the_page_says_when_it_stops(
    furnished: Place, admin: Visitor
) -> None:
    await admin.go("/admin/pools/retired")
    section = admin.page.get_by_test_id("pool-healing")
    await expect(section).to_be_visible()
    await admin.page.get_by_test_id("healing-close").click()
    await expect(section).to_be_hidden()
    async with await connect(furnished.database_url) as connection:
        await connection.execute(STOPPED)
    await expect(section).to_be_visible()
    await expect(section).to_contain_text("No room.")
