"""Every page in every state it knows: what to open, as whom, and how to bring the page there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Page, expect

from tests.harness.pages import Visitor
from tests.harness.server import PASSWORD
from tests.pages.desks import PASSWORD as PEOPLES_PASSWORD
from tests.pages.worlds import World

SIZES = {"wide": {"width": 1440, "height": 900}, "phone": {"width": 390, "height": 844}}
THEMES = ("light", "dark")
Act = Callable[[Page], Awaitable[object]]


@dataclass(frozen=True)
class State:
    """One state of one page. ``seat`` names whose browser it is; ``act`` brings the page there.

    A variant is made of the same parts as another state: it is looked at in pictures and left out of the tests. A
    further state of a page that has one already is for the soak.
    """

    name: str
    path: str
    seat: str = ""
    is_admin: bool = True
    act: Act | None = None
    is_full: bool = False
    is_variant: bool = False
    is_further: bool = False


def public(name: str, path: str, *, seat: str = "", **more: Any) -> State:
    """A page that needs no sign-in."""
    return State(name, path, seat, is_admin=False, is_full=bool(seat), **more)


async def select_three(page: Page) -> None:
    for name in ("genomics-001", "genomics-011", "genomics-012"):
        await page.get_by_test_id(f"vm-{name}").get_by_role("checkbox").check()


async def ask_to_destroy(page: Page) -> None:
    await select_three(page)
    await page.get_by_test_id("vm-action-destroy").click()
    await expect(page.get_by_test_id("confirm-submit")).to_be_visible()


async def search_nothing(page: Page) -> None:
    await page.get_by_role("searchbox").fill("no such machine")


async def search_the_log(page: Page) -> None:
    await page.get_by_test_id("vm-log-search").fill("loss")
    await page.get_by_label("Only matches").uncheck()
    # Lines come after the page does, and there is no next match before there is one.
    await expect(page.get_by_test_id("vm-log-count")).not_to_have_text("0 matches")
    await page.get_by_test_id("vm-log-search").press("Enter")
    await expect(page.locator(".log .here")).to_have_count(1)


async def filter_trouble(page: Page) -> None:
    await page.get_by_role("button", name="Trouble").click()


async def lose_socket(page: Page) -> None:
    await page.evaluate("window.socket.disconnect()")
    await expect(page.locator(".banner.offline")).to_be_visible()


async def pretend_stale(page: Page) -> None:
    await page.evaluate("document.querySelector('.banner.stale').dataset.status = 'stale'")


async def launch_too_many(page: Page) -> None:
    await page.get_by_test_id("launch-count").fill("50")
    await page.get_by_test_id("launch-submit").click()
    await expect(page.get_by_test_id("launch-error")).not_to_be_empty()


async def launch_into_a_problem(page: Page) -> None:
    checks = page.get_by_test_id("launch-checks")
    await expect(checks).to_have_attribute("data-status", "problem", timeout=20_000)
    await page.get_by_test_id("launch-submit").click()
    await expect(page.get_by_test_id("launch-error")).to_contain_text("launch all the same")


async def ask_to_mend(page: Page) -> None:
    await page.get_by_test_id("mend-state-lost-cloud").click()
    await expect(page.get_by_test_id("confirm-submit")).to_be_visible()


async def sign_in_wrongly(page: Page) -> None:
    await page.get_by_test_id("login-password").fill("wrong")
    await page.get_by_test_id("login-submit").click()
    await page.wait_for_url("**error=**")


async def claim_wrongly(page: Page) -> None:
    await page.get_by_test_id("claim-email").fill("ada@lab.org")
    await page.get_by_test_id("claim-submit").click()
    await expect(page.get_by_test_id("claim-error")).not_to_be_empty()


async def join_wrongly(page: Page) -> None:
    await page.get_by_test_id("join-code").fill("nowhere")
    await page.get_by_test_id("join-submit").click()
    await expect(page.get_by_role("alert")).not_to_be_empty()


async def make_tokens(page: Page) -> None:
    await page.get_by_test_id("enrolment-count").fill("2")
    await page.get_by_test_id("enrolment-submit").click()
    await expect(page.get_by_test_id("enrolment-lines")).not_to_be_empty()


async def choose_aws(page: Page) -> None:
    await page.get_by_test_id("pool-provider").select_option("aws")
    await expect(page.get_by_test_id("pool-aws-ami")).to_be_visible()


async def invite_somebody(page: Page) -> None:
    await page.get_by_test_id("invite-name").fill("maximiliane.featherstonehaugh@neuroscience.example")
    await page.get_by_test_id("invite-create").click()
    await expect(page.get_by_test_id("invite-link")).not_to_be_empty()


async def set_up_second_step(page: Page) -> None:
    await page.get_by_test_id("second-step-password").fill(PASSWORD)
    await page.get_by_test_id("second-step-begin").click()
    await expect(page.get_by_test_id("second-step-secret")).to_be_visible()


async def show_pin(page: Page) -> None:
    await page.get_by_test_id("crd-pin-show").click()
    await expect(page.get_by_test_id("crd-pin")).not_to_be_empty()


async def make_key(page: Page) -> None:
    await page.get_by_test_id("seat-new-key").click()
    await expect(page.get_by_test_id("seat-key")).not_to_be_empty()


async def open_wrongly(page: Page) -> None:
    await page.get_by_test_id("seat-key-field").fill("0000-0000-0000-0000")
    await page.get_by_test_id("seat-key-submit").click()
    await expect(page.get_by_test_id("seat-key-error")).not_to_be_empty()


async def claim_with_a_wrong_code(page: Page) -> None:
    await page.get_by_test_id("claim-code").fill("ABCD-EFGH")
    await claim_wrongly(page)


async def come_to_the_second_step(page: Page) -> None:
    await page.get_by_test_id("login-user").fill("tess")
    await page.get_by_test_id("login-password").fill(PEOPLES_PASSWORD)
    await page.get_by_test_id("login-submit").click()
    await page.wait_for_url("**/login/code**")
    await page.wait_for_function("window.did_handshake")


async def check_a_roster(page: Page) -> None:
    content = b"ada@lab.org,Ada\nnobody\nbob@lab.org,Bob\nbob@lab.org,Bob again\n"
    given = {"name": "class.csv", "mimeType": "text/csv", "buffer": content}
    await page.get_by_test_id("roster-file").set_input_files(given)
    await page.get_by_test_id("roster-check").click()
    await expect(page.get_by_text("Line 2: 'nobody' is not an e-mail address.")).to_be_visible()


BARE = (
    State("admin-empty", "/admin"),
    State("machines-empty", "/admin/instances"),
    State("alarms-none", "/admin/alarms", is_further=True),
    State("operations-empty", "/admin/operations", is_variant=True),
    State("events-few", "/admin/events", is_variant=True),
    State("pools-one", "/admin/pools", is_variant=True),
)
CLOSED = (State("launch-no-pool", "/admin/create"),)
FURNISHED = (
    public("home", "/", is_variant=True),
    public("home-wrong-code", "/", act=join_wrongly),
    public("home-with-seat", "/", seat="active", is_variant=True),
    public("join", "/join/genomics", is_variant=True),
    public("join-line", "/join/default", is_variant=True),
    public("join-taken", "/join/genomics", act=claim_wrongly),
    public("join-unknown", "/join/unknown", is_variant=True),
    public("join-closed", "/join/retired", is_further=True),
    public("join-code", "/join/hall?code={code}"),
    public("join-code-wrong", "/join/hall", act=claim_with_a_wrong_code, is_variant=True),
    public("join-roster", "/join/class?me={me}", is_variant=True),
    public("join-roster-no-link", "/join/class", is_variant=True),
    public("join-oidc", "/join/members", is_further=True),
    public("seat-none", "/seat", is_variant=True),
    public("seat-wrong-key", "/seat", act=open_wrongly, is_variant=True),
    public("seat-signed-out", "/seat?signed-out", is_variant=True),
    public("seat-crd-new", "/seat", seat="crd-new", is_further=True),
    public("seat-crd-waiting", "/seat", seat="crd-waiting", is_variant=True),
    public("seat-crd-starting", "/seat", seat="crd-starting", is_further=True),
    public("seat-crd-ready", "/seat", seat="crd-ready", act=show_pin),
    public("seat-crd-failed", "/seat", seat="crd-failed", is_further=True),
    public("seat-terminal", "/seat", seat="shell", act=make_key),
    public("seat-asked", "/seat", seat="asked", is_further=True),
    public("seat-watched", "/seat", seat="watched", is_further=True),
    public("seat-waiting", "/seat", seat="waiting"),
    public("seat-rescued", "/seat", seat="preparing", is_further=True),
    public("seat-active", "/seat", seat="active", is_further=True),
    public("seat-released", "/seat", seat="released", is_variant=True),
    public("seat-failed", "/seat", seat="failed", is_variant=True),
    public("login", "/login", is_variant=True),
    public("login-error", "/login", act=sign_in_wrongly),
    public("login-code", "/login", act=come_to_the_second_step),
    public("invite", "/invite/{invite}"),
    public("invite-reset", "/invite/{reset}", is_variant=True),
    public("not-found", "/nowhere"),
    public("seat-link-spent", "/seat/open/spent", is_variant=True),
    State("admin", "/admin"),
    State("launch", "/admin/create?pool=genomics", is_variant=True),
    State("launch-error", "/admin/create?pool=genomics", act=launch_too_many),
    State("launch-problem", "/admin/create?pool=cloud", act=launch_into_a_problem, is_full=True, is_further=True),
    State("admin-mend", "/admin", act=ask_to_mend, is_further=True),
    State("pool-state", "/admin/pools/cloud/state", is_full=True),
    State("machines", "/admin/instances", is_variant=True),
    State("fleet", "/admin/fleet"),
    State("machines-trouble", "/admin/instances", act=filter_trouble, is_variant=True),
    State("machines-nothing-matches", "/admin/instances", act=search_nothing, is_variant=True),
    State("machines-selected", "/admin/instances", act=select_three),
    State("machines-dialog", "/admin/instances", act=ask_to_destroy),
    State("machines-offline", "/admin/instances", act=lose_socket, is_further=True),
    State("machines-stale", "/admin/instances", act=pretend_stale, is_variant=True),
    State("machine-fresh", "/admin/instances/genomics-013", is_full=True, is_variant=True),
    State("machine-in-use", "/admin/instances/genomics-001", act=search_the_log, is_full=True),
    State("machine-long-email", "/admin/instances/genomics-004", is_variant=True),
    State("machine-failed", "/admin/instances/vision-004", is_full=True, is_further=True),
    State("machine-cleaning", "/admin/instances/genomics-007", is_variant=True, is_full=True),
    State("machine-unclean", "/admin/instances/genomics-006", is_variant=True, is_full=True),
    State("machine-silent", "/admin/instances/genomics-002", is_variant=True),
    State("machine-destroyed", "/admin/instances/vision-003", is_variant=True),
    State("machine-asked", "/admin/instances/{asked}", is_variant=True, is_full=True),
    State("machine-watched", "/admin/instances/{watched}", is_full=True, is_further=True),
    State("machine-unknown", "/admin/instances/nowhere"),
    State("operations", "/admin/operations"),
    State("operation-running", "/admin/operations/{running}", is_full=True),
    *(State(f"operation-{state}", f"/admin/operations/{{{state}}}", is_full=True, is_variant=True)
      for state in ("queued", "succeeded", "failed", "cancelled")),
    State("operation-unknown", "/admin/operations/4711", is_variant=True),
    State("pools", "/admin/pools", is_full=True, is_further=True),
    State("pools-aws", "/admin/pools", act=choose_aws, is_full=True),
    State("pool", "/admin/pools/genomics", act=make_tokens, is_full=True),
    State("pool-code", "/admin/pools/hall", is_full=True, is_further=True),
    State("pool-roster", "/admin/pools/class", act=check_a_roster, is_full=True),
    State("pool-oidc", "/admin/pools/members", is_full=True, is_variant=True),
    State("screen", "/admin/pools/hall/screen"),
    State("screen-open", "/admin/pools/genomics/screen", is_variant=True),
    State("pool-healing-stopped", "/admin/pools/retired", is_full=True, is_further=True),
    State("rehearsal", "/admin/pools/genomics/rehearsal", is_full=True),
    State("rehearsal-none", "/admin/pools/default/rehearsal", is_full=True, is_variant=True),
    State("pool-unknown", "/admin/pools/nowhere", is_variant=True),
    State("events", "/admin/events"),
    State("schedules", "/admin/schedules", is_full=True),
    State("alarms", "/admin/alarms", is_full=True),
    public("invite-spent", "/invite/unknown", is_further=True),
    State("people", "/admin/people", act=invite_somebody, is_full=True),
    State("person", "/admin/people/admin", is_full=True),
    State("person-operator", "/admin/people/lee", is_full=True, is_variant=True),
    State("person-disabled", "/admin/people/gone", is_full=True, is_variant=True),
    State("account", "/admin/account", act=set_up_second_step, is_full=True),
)  # fmt: skip
CROWDED = (
    State("admin-crowded", "/admin"),
    State("machines-crowded", "/admin/instances"),
    State("fleet-crowded", "/admin/fleet", is_variant=True),
    State("events-many", "/admin/events"),
    State("alarms-many", "/admin/alarms", is_full=True),
    State("operation-crowded", "/admin/operations/9"),
)


async def become(person: Visitor, state: State, world: World | None) -> None:
    """Signs in, or takes the seat, as the state asks."""
    if state.is_admin:
        await person.sign_in()
    elif state.seat and world:
        cookie = {"name": "lablink-browser", "value": world.seats[state.seat], "url": person.server.url}
        await person.context.add_cookies([cookie])


async def bring(page: Page, state: State, url: str, world: World | None) -> None:
    """Opens the page, waits until it shows what it has to show, and does what the state asks."""
    await page.goto(url + (state.path.format(**world.operations, **world.words) if world else state.path))
    await page.wait_for_function("window.did_handshake || !document.querySelector('#app')")
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)
    if state.act:
        await state.act(page)
