"""Signing in at the organisation, against providers that are honest, away, and liars."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from backend.services.actor import Actor
from backend.services.admission import set_access
from backend.services.events import list_events
from backend.states import Access
from tests.harness.forms import post_form
from tests.harness.oidc_provider import ProviderProcess
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server
from tests.harness.workshops import workshop

ADMIN = "/oidc/login?for=admin"


async def begin(client: httpx.AsyncClient, path: str = ADMIN) -> str:
    """Clicks the button; returns where the browser is sent."""
    answer = await client.get(path)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


async def agree(url: str, subject: str | None = None) -> str:
    """Signs in at the provider; returns where the browser is sent back to."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await (browser.post(url, data={"sub": subject}) if subject else browser.get(url))
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


async def sign_in(client: httpx.AsyncClient, path: str = ADMIN, subject: str | None = None) -> httpx.Response:
    """The whole way there and back."""
    return await client.get(await agree(await begin(client, path), subject))


async def who_am_i(client: httpx.AsyncClient) -> int:
    return (await client.get("/api/admin/instances")).status_code


@pytest.fixture(scope="module")
async def liar(web_server: Server, provider: ProviderProcess) -> ProviderProcess:
    """The provider, lying. Where an honest one stood before, it has other keys: they are read anew."""
    await provider.start_liar()
    return provider


async def test_a_provider_that_is_away_stops_neither_the_server_nor_passwords(web_server, provider) -> None:
    provider.stop()
    async with web_server.client() as client:
        assert "login-oidc" in (await client.get("/login")).text
        answer = await client.get(ADMIN)
        assert answer.headers["location"].startswith("/login?error=oidc_unavailable")
        assert "does not answer right now" in (await client.get(answer.headers["location"])).text
        pool = await client.get("/oidc/login?for=pool&pool=default")
        assert (pool.status_code, pool.json()["error"]["code"]) == (503, "oidc_unavailable")


async def test_groups_make_the_role_at_every_sign_in(web_server, provider) -> None:
    await provider.start_honest()
    async with web_server.client() as client:
        # The name is taken by an admin of our own, whom no provider can become.
        await provider.put_user("s-7", preferred_username="admin", email="ada@lab.org", groups=["staff", "lab-admins"])
        arrived = await sign_in(client, ADMIN + "&next=/admin/pools", "s-7")
        assert arrived.headers["location"] == "/admin/pools"
        assert "no-referrer" in arrived.headers["referrer-policy"]
        page = (await client.get("/admin")).text
        assert "ada@lab.org" in page
        origin = {"Origin": web_server.url}
        wrong = {"hostnames": ["no-such-vm"]}
        assert (await client.post("/api/admin/destroy", json=wrong, headers=origin)).status_code == 404

        await provider.put_user("s-7", preferred_username="admin", email="ada@lab.org", groups=["staff"])
        await sign_in(client, subject="s-7")
        assert await who_am_i(client) == 200
        assert (await client.post("/api/admin/destroy", json=wrong, headers=origin)).status_code == 403

        await provider.put_user("s-7", email="ada@lab.org", groups=["gardeners"])
        refused = await sign_in(client, subject="s-7")
        assert refused.headers["location"].startswith("/login?error=oidc_no_role")
        assert "none of the groups" in (await client.get(refused.headers["location"])).text
        # What was open under the former groups has ended too.
        assert await who_am_i(client) == 401
    async with database_of(web_server) as db:
        kinds = [event.kind for event in await list_events(db, words="ada@lab.org")]
    assert kinds[::-1] == ["user.created", "user.signed_in", "user.role", "user.signed_in",
                           "user.sign_in_failed"]  # fmt: skip


async def test_from_a_link_over_the_organisations_sign_in_to_a_seat_and_others_are_told_why_not(
    web_server, provider, browser
) -> None:
    await provider.put_user("s-8", email="ada@lab.org", groups=["course-1"])
    await provider.put_user("s-9", email="bob@lab.org", groups=["course-2"])
    async with workshop(web_server, 1) as (pool, _), database_of(web_server) as db:
        await set_access(db, pool, Access.OIDC, oidc_group="course-1", actor=Actor.admin("test"))
        ada, bob = await come(browser, web_server), await come(browser, web_server)
        await go_to_the_provider(bob, pool, "s-9")
        await expect(bob.page.get_by_text(f"{pool} is for a group that your account is not in")).to_be_visible()
        await go_to_the_provider(ada, pool, "s-8")
        await ada.page.wait_for_url(f"**/join/{pool}")
        await ada.page.wait_for_function("window.did_handshake")
        email = ada.page.get_by_test_id("claim-email")
        await expect(email).to_have_value("ada@lab.org")
        await expect(email).not_to_be_editable()
        await check_axe(ada)

        # The group that is asked for changes: whoever is known and not in it is told before the click.
        await set_access(db, pool, Access.OIDC, oidc_group="course-3", actor=Actor.admin("test"))
        await ada.go(f"/join/{pool}")
        await expect(ada.page.get_by_text("You are signed in as ada@lab.org, whom your")).to_be_visible()
        await check_axe(ada)
        await set_access(db, pool, Access.OIDC, oidc_group="course-1", actor=Actor.admin("test"))
        await ada.go(f"/join/{pool}")
        await ada.page.get_by_test_id("join-sign-out").click()
        await ada.page.wait_for_url(web_server.url + "/")
        await go_to_the_provider(ada, pool, "s-8")
        await ada.page.wait_for_url(f"**/join/{pool}")
        await ada.page.wait_for_function("window.did_handshake")
        await ada.page.get_by_test_id("claim-submit").press("Enter")
        await ada.page.wait_for_url("**/seat")
        await ada.sees_status("seat-status", "active")
        await expect(ada.page.get_by_test_id("seat-hostname")).to_have_text(f"{pool}-000")
    assert ada.errors == []
    assert all("status of 403" in said for said in bob.errors)


async def come(browser: Browser, server: Server) -> Visitor:
    """Somebody whose browser takes the provider's look from nowhere else."""
    person = await visit(browser, server)
    await person.page.route(
        "https://cdn.jsdelivr.net/**", lambda route: route.fulfill(body="", content_type="text/css")
    )
    return person


async def go_to_the_provider(person: Visitor, pool: str, subject: str) -> None:
    """From the link to the provider, by keyboard, and through its form."""
    page = await person.go(f"/join/{pool}")
    await expect(page.get_by_role("heading", name="Sign in first")).to_be_visible()
    await check_axe(person)
    await page.get_by_test_id("join-oidc").press("Enter")
    await page.get_by_placeholder("sub").fill(subject)
    await page.get_by_role("button", name="Authorize", exact=True).click()


async def check_axe(person: Visitor) -> None:
    await person.page.emulate_media(reduced_motion="reduce")
    found = await Axe().run(person.page, context={"exclude": [["#q-loading-bar"]]})
    assert found.violations_count == 0, found.generate_report()


async def test_saying_no_at_the_provider_is_told(web_server, provider) -> None:
    async with web_server.client() as client, httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.post(await begin(client), data={"action": "deny"})
        denied = answer.headers["location"]
        url = denied if "state=" in denied else f"{denied}&state={state_of(await begin(client))}"
        assert (await client.get(url)).headers["location"].startswith("/login?error=oidc_refused")


def state_of(url: str) -> str:
    found = re.search(r"[?&]state=([^&]+)", url)
    assert found
    return found[1]


async def test_what_is_asked_of_the_provider_holds_pkce_state_and_nonce(web_server, liar) -> None:
    async with web_server.client() as client:
        one, other = await begin(client), await begin(client)
        for part in ("code_challenge_method=S256", "code_challenge=", "state=", "nonce=", "response_type=code"):
            assert part in one
        assert f"redirect_uri=http%3A%2F%2F127.0.0.1%3A{web_server.port}%2Foidc%2Fcallback" in one
        assert state_of(one) != state_of(other)
        cookie = (await client.get(ADMIN)).headers["set-cookie"]
        assert all(part in cookie for part in ("HttpOnly", "SameSite=Lax", "Max-Age=600"))
        assert state_of(other) not in cookie


@pytest.mark.parametrize(
    "lie",
    ["nonce", "no_nonce", "issuer", "audience", "audiences", "no_aud", "expired", "no_exp", "future", "no_sub",
     "signature", "none", "hs256", "garbage", "at_hash", "other_provider", "another_person"],
)  # fmt: skip
async def test_no_lie_of_a_provider_signs_anybody_in(web_server, liar, lie: str) -> None:
    await liar.tell(lie, groups=["lab-admins"])
    async with web_server.client() as client:
        refused = await sign_in(client)
        assert refused.headers["location"].startswith("/login?error=oidc_failed"), refused.headers
        assert "lablink-session" not in refused.headers.get("set-cookie", "")
        assert await who_am_i(client) == 401
        # The very same way without the lie leads in: it was the lie that was refused.
        await liar.tell("", groups=["lab-admins"])
        assert (await sign_in(client)).headers["location"] == "/admin"
        assert await who_am_i(client) == 200


@pytest.mark.parametrize(("lie", "code"), [("error", "oidc_refused"), ("away", "oidc_unavailable")])
async def test_an_error_of_the_provider_is_told_without_its_words(web_server, liar, lie: str, code: str) -> None:
    await liar.tell(lie, groups=["lab-admins"])
    async with web_server.client() as client:
        location = (await sign_in(client)).headers["location"]
        assert location.startswith(f"/login?error={code}")
        assert "alert(1)" not in location + (await client.get(location)).text


async def test_a_state_works_once_and_only_in_the_browser_that_began(web_server, liar) -> None:
    await liar.tell(groups=["lab-admins"])
    async with web_server.client() as mine, web_server.client() as thief:
        back = await agree(await begin(mine))
        stolen = await thief.get(back)
        assert (stolen.status_code, stolen.json()["error"]["code"]) == (401, "oidc_state")
        await begin(thief)
        assert (await thief.get(back)).status_code == 401
        kept = mine.cookies["lablink-oidc"]
        assert (await mine.get(back)).headers["location"] == "/admin"
        # Replayed with everything the browser had at the time, and without.
        assert (await mine.get(back)).status_code == 401
        mine.cookies.set("lablink-oidc", kept)
        assert (await mine.get(back)).status_code == 401
        async with web_server.client(cookies={"lablink-oidc": kept[:-2] + "xx"}) as forger:
            assert (await forger.get(back)).status_code == 401


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/admin//evil", "javascript:alert(1)", "/login",
     "/admin\r\nSet-Cookie: a=b", "evil", "/api/admin/instances", "/oidc/login", "/admin/é"],
)  # fmt: skip
async def test_signing_in_leads_only_to_pages_of_the_console(web_server, liar, target: str) -> None:
    await liar.tell(groups=["lab-admins"])
    async with web_server.client() as client:
        answer = await client.get("/oidc/login", params={"for": "admin", "next": target})
        back = await agree(answer.headers["location"])
        assert (await client.get(back)).headers["location"] == "/admin"


async def test_a_researcher_is_proven_to_a_pool_and_only_in_this_browser(web_server, liar) -> None:
    pool = await make_pool(web_server, "members", oidc_group="course-1")
    path = f"/oidc/login?for=pool&pool={pool}&next=/join/{pool}"
    async with web_server.client() as client, web_server.client() as other:
        await liar.tell(groups=["course-2"])
        outside = await sign_in(client, path)
        assert (outside.status_code, outside.json()["error"]["code"]) == (403, "forbidden")
        await liar.tell(groups=["course-1", "course-2"], email_verified=False)
        assert (await sign_in(client, path)).status_code == 403
        await liar.tell(groups=["course-1", "course-2"])
        arrived = await sign_in(client, path)
        assert urlsplit(arrived.headers["location"]).path == f"/join/{pool}"
        sealed = client.cookies["lablink-person"]
        assert "kim" not in sealed
        # A researcher is no admin, whatever the groups.
        assert await who_am_i(client) == 401
        await other.get("/")
        other.cookies.set("lablink-person", sealed)
        left = await post_form(client, "/login", "/oidc/logout")
        assert left.status_code == 303
        assert "lablink-person" not in client.cookies


async def test_a_provider_that_tells_the_email_only_when_asked_is_asked(web_server, liar) -> None:
    await liar.tell("no_email", groups=["lab-admins"], sub="s-1", preferred_username=None)
    async with web_server.client() as client:
        assert (await sign_in(client)).headers["location"] == "/admin"


async def test_a_provider_that_names_another_issuer_is_not_used(liar) -> None:
    from backend.errors import Unavailable
    from backend.oidc import Provider
    from backend.setting_keys import OidcSettings

    await liar.tell("metadata_issuer")
    asked = Provider(OidcSettings(issuer=liar.issuer, client_id="x"), None)
    with pytest.raises(Unavailable):
        await asked.begin("http://127.0.0.1/oidc/callback")
    await liar.tell()
    assert (await asked.begin("http://127.0.0.1/oidc/callback"))[0].startswith(liar.issuer)


async def test_the_button_leads_through_the_provider_into_the_console(web_server, liar, browser) -> None:
    await liar.tell(groups=["lab-admins"])
    visitor = await visit(browser, web_server)
    page = await visitor.go("/login?next=/admin/pools")
    found = await Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    await page.get_by_test_id("login-oidc").focus()
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/admin/pools")
    await expect(page.get_by_role("heading", name="Pools")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/login")
    assert visitor.errors == []
