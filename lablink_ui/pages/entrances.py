"""Ways into a workshop: what was typed at the front door, and what its own page asks for."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from fastapi import Request

from backend.api.auth import get_address
from backend.api.person import find_person
from backend.errors import InvalidInput, LabLinkError
from backend.house import House
from backend.services.codes import SEAT_KEY, is_code
from backend.services.join_codes import find_pool_by_code
from backend.services.rosters import check_link
from backend.services.views import PoolView
from backend.states import Access
from lablink_ui.parts import Field, form_token_field, tag

MAX_TYPED = 128
_OTHER_GROUP = "You are signed in as {}, whom your organisation does not count among this workshop. Ask your organiser."


async def find_entrance(house: House, typed: str, *, address: str | None) -> str | None:
    """Where to go with what was typed: the name of an open pool or a join code; None for a seat key.

    Raises:
        InvalidInput, Forbidden, Throttled: it is nothing of all this; says so.
    """
    wanted = typed.strip()[:MAX_TYPED]
    if not wanted:
        raise InvalidInput("Enter a join code.")
    pool = house.live.snapshot.find_pool(wanted.lower())
    if pool is not None and pool.access is Access.OPEN:
        return f"/join/{quote(pool.name)}"
    if is_code(wanted, SEAT_KEY):
        return None
    name, code = await find_pool_by_code(house.db, wanted, address=address)
    return f"/join/{quote(name)}?code={code}"


@dataclass(frozen=True, slots=True)
class Entrance:
    """What somebody who looks at a pool's page has brought along. ``refusal``: why that is not enough."""

    access: Access
    email: str | None = None
    link: str = ""
    code: str = ""
    refusal: str = ""


async def look_at(request: Request, house: House, pool: PoolView) -> Entrance:
    """How a visitor may get in here."""
    asked = request.query_params
    if pool.access is Access.CODE:
        return Entrance(pool.access, code=asked.get("code", "")[:MAX_TYPED])
    if pool.access is Access.OIDC:
        person = find_person(request, house)
        if person is None:
            return Entrance(pool.access)
        refusal = "" if person.may_join(pool.oidc_group) else _OTHER_GROUP.format(person.email)
        return Entrance(pool.access, email=person.email, refusal=refusal)
    if pool.access is Access.OPEN:
        return Entrance(pool.access)
    link = asked.get("me", "")[:MAX_TYPED]
    if not link:
        return Entrance(pool.access, refusal="Your organiser sent you a personal link to it: use that one.")
    try:
        entry = await check_link(house.db, pool.name, link, keys=house.keys, address=get_address(request))
    except LabLinkError as exc:
        return Entrance(pool.access, refusal=exc.message)
    return Entrance(pool.access, email=entry.email, link=link)


def draw_fields(entrance: Entrance) -> None:
    """The fields of the claim's form."""
    is_known = entrance.email is not None
    Field(
        "E-mail",
        name="email",
        kind="email",
        value=entrance.email or "",
        testid="claim-email",
        hint="So your organiser knows you" if is_known else "Your organiser sees it beside your machine",
        autocomplete="email",
        required=True,
        readonly=is_known,
        autofocus=not is_known,
    )
    if entrance.access is Access.CODE:
        Field(
            "Join code",
            name="code",
            testid="claim-code",
            value=entrance.code,
            autocomplete="off",
            autocapitalize="characters",
            spellcheck="false",
            required=True,
        )
    if entrance.link:
        tag("input", type="hidden", name="me", value=entrance.link)


def draw_sign_in(house: House, pool: str) -> None:
    """The way through the organisation's sign-in, and back here."""
    href = f"/oidc/login?for=pool&pool={quote(pool)}"
    with tag("a", "button primary big", href=href, data_testid="join-oidc"):
        tag("span", "", house.settings.oidc.button)


def draw_sign_out() -> None:
    """The way out for whoever is not the person that this browser knows."""
    with tag("form", "row", method="post", action="/oidc/logout"):
        form_token_field()
        tag("span", "sub", "Not you?")
        tag("button", "button small", "Sign out", type="submit", data_testid="join-sign-out")
