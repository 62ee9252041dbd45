"""Every page in every state: axe finds nothing, the console is silent, nothing comes from elsewhere or is cut off, and
the test ids that people script with are there, each once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import product

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page

from tests.harness.pages import Visitor, visit
from tests.pages.contract import CONTRACT, STATES, find_missing
from tests.pages.states import BARE, FURNISHED, SIZES, THEMES, State, become, bring

AXE = Axe().axe_script
# The two looks that differ most. Every size in every theme is for `make soak`.
LOOKS = (("wide", "light"), ("phone", "dark"))
ALL_LOOKS = tuple(product(SIZES, THEMES))
Looks = Sequence[tuple[str, str]]
# Rows of one table are alike: the first ones speak for all.
LOOK = """async (theme) => {
  document.documentElement.dataset.theme = theme;
  const found = await axe.run(
    { include: [["html"]], exclude: [["table.live tbody tr:nth-child(n+10)"]] },
    { resultTypes: ["violations"], preload: false });
  return found.violations.map((each) => `${each.id}: ${each.nodes.map((node) => node.html).slice(0, 3).join(" ")}`);
}"""
# Whatever is wider than the window, or than the card around it.
CUT_OFF = """() => [document.documentElement, ...document.querySelectorAll(".card, .panel, .page")]
  .filter((each) => each.scrollWidth > each.clientWidth + 1)
  .map((each) => `${each.className || each.tagName} needs ${each.scrollWidth} px and has ${each.clientWidth}`)"""
# An id that people script with names one element of a page.
TWICE = """() => {
  const ids = [...document.querySelectorAll("[data-testid]")].map((each) => each.dataset.testid);
  return [...new Set(ids.filter((each, at) => ids.indexOf(each) !== at))].map((each) => `${each} is there twice`);
}"""
WIDTHS = (320, 900, 1180)
# What stands in the console although all is well: the browser notes answers of 4xx by itself.
REFUSED = ("join-taken", "not-found", "seat-link-spent")


def chosen(states: Sequence[State]) -> list[State]:
    return [state for state in states if not state.is_variant]


def each_of(states: Sequence[State]) -> pytest.MarkDecorator:
    """Every page in one look, by turns; for the soak, every state that is no variant of another in all looks."""
    shown = chosen(states)
    first = [state for state in shown if not state.is_further]
    one = [pytest.param(state, (LOOKS[at % len(LOOKS)],), id=state.name) for at, state in enumerate(first)]
    whole = [pytest.param(state, ALL_LOOKS, id=f"{state.name}-every-look", marks=pytest.mark.long) for state in shown]
    return pytest.mark.parametrize(("state", "looks"), [*one, *whole])


@pytest.fixture(scope="module")
async def people(chromium: Browser) -> AsyncIterator[dict[str, Visitor]]:
    """One browser for everybody who looks at a state."""
    found: dict[str, Visitor] = {}
    yield found
    for person in found.values():
        await person.context.close()


@each_of(FURNISHED)
async def test_a_page_is_accessible_and_quiet(
    chromium: Browser, furnished, people: dict[str, Visitor], state: State, looks: Looks
) -> None:
    await look_at(chromium, furnished, people, state, looks)


@each_of(BARE)
async def test_an_empty_page_is_accessible_and_quiet_too(
    chromium: Browser, bare, people: dict[str, Visitor], state: State, looks: Looks
) -> None:
    await look_at(chromium, bare, people, state, looks)


def test_every_page_of_the_contract_is_looked_at() -> None:
    assert CONTRACT.keys() | STATES.keys() <= {state.name for state in chosen(FURNISHED) if not state.is_further}


async def look_at(chromium: Browser, place, people: dict[str, Visitor], state: State, looks: Looks) -> None:
    whose = f"{place.server.port} {state.is_admin} {state.seat}"
    if whose not in people:
        people[whose] = await visit(chromium, place.server, viewport=SIZES["wide"], reduced_motion="reduce")
        await become(people[whose], state, place.world)
    person = people[whose]
    asked = listen(person.page)
    await person.page.set_viewport_size(SIZES["wide"])
    await bring(person.page, state, place.server.url, place.world)
    found = await find_missing(person.page, state.name) + await examine(person.page, looks)
    own = (place.server.url, place.server.url.replace("http", "ws", 1), "data:")
    foreign = [url for url in asked if not url.startswith(own)]
    errors = [said for said in person.errors if not (state.name in REFUSED and "status of 4" in said)]
    person.errors.clear()
    assert (found, errors, foreign) == ([], [], [])


def listen(page: Page) -> list[str]:
    """Every address that the page asks for from now on."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    return asked


async def examine(page: Page, looks: Looks = LOOKS) -> list[str]:
    """What is wrong with the page, in each of these looks, and what is cut off at any width."""
    found = list(await page.evaluate(TWICE))
    await page.evaluate(AXE)
    for size, theme in looks:
        await page.set_viewport_size(SIZES[size])
        found += [f"{size} {theme}: {each}" for each in await page.evaluate(LOOK, theme)]
        found += [f"{size}: {each}" for each in await page.evaluate(CUT_OFF)]
    for width in WIDTHS:
        await page.set_viewport_size({"width": width, "height": 800})
        found += [f"{width} px: {each}" for each in await page.evaluate(CUT_OFF)]
    return found
