"""A rehearsal by its page: begun by the form, and followed to its verdict without a reload."""

from __future__ import annotations

from playwright.async_api import expect

from tests.harness.pages import Visitor


async def test_a_rehearsal_begun_on_the_page_is_followed_to_its_verdict(admin: Visitor) -> None:
    page = await admin.go("/admin/pools/default")
    await page.get_by_role("link", name="Rehearse").click()
    await page.get_by_test_id("rehearsal-people").fill("0")
    # The browser's own check would not let it go.
    await page.get_by_test_id("rehearsal-people").evaluate("(field) => (field.form.noValidate = true)")
    await page.get_by_test_id("rehearsal-replay").uncheck()
    await page.get_by_test_id("rehearsal-submit").click()
    await expect(page.get_by_test_id("rehearsal-submit-error")).to_contain_text("from 1 to 2,000")
    await page.get_by_test_id("rehearsal-people").fill("12")
    await page.get_by_test_id("rehearsal-replay").uncheck()
    await page.get_by_test_id("rehearsal-submit").click()
    verdict = page.get_by_test_id("rehearsal-verdict")
    await expect(verdict).to_have_attribute("data-status", "no-go", timeout=20_000)
    await expect(page.get_by_text("No machine has passed")).to_be_visible()
    await expect(page.get_by_text("No boots measured yet: 10 minutes are assumed")).to_be_visible()
    await expect(page.get_by_text("12 machines are to be launched.")).to_be_visible()
    await expect(page.get_by_test_id("rehearsal-end")).to_be_hidden()
