"""Signing in at the organisation: admins to the console, researchers to a pool that asks for it."""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from fastapi.responses import RedirectResponse, Response

from backend.api.auth import Address, TheHouse, is_secure
from backend.api.cookies import clear_cookie, named, set_cookie, set_session
from backend.api.csrf import read_form
from backend.api.person import forget_person, set_person
from backend.errors import Forbidden, LabLinkError, NotFound, Unauthenticated
from backend.house import House
from backend.oidc import Attempt, Provider, Vouched
from backend.services.oidc_sign_in import list_oidc_groups, sign_in_by_oidc
from backend.services.pools import get_pool

ATTEMPT_S = 600
MAX_WORD = 2_000
_NAME = "lablink-oidc"
_STRANGE = "This sign-in was not begun in this browser, was used already, or took too long. Start again."

router = APIRouter(prefix="/oidc", include_in_schema=False)
Word = Annotated[str | None, Query(max_length=MAX_WORD)]


@dataclass(frozen=True, slots=True)
class _Journey:
    """A sign-in on its way, sealed in a cookie of the browser that began it."""

    kind: str
    whom: str
    pool: str | None
    target: str
    attempt: Attempt
    until: float


@router.get("/login")
async def login(
    house: TheHouse,
    whom: Annotated[Literal["admin", "pool"], Query(alias="for")] = "admin",
    pool: Word = None,
    target: Annotated[str, Query(alias="next", max_length=MAX_WORD)] = "",
) -> Response:
    """Sends the browser to the provider. ``for=pool`` needs ``pool=``; ``next`` is a path of ours to end at."""
    provider = _provider(house)
    if whom == "pool":
        await get_pool(house.db, pool or "")
        target = own_path(target, default=f"/join/{quote(pool or '')}")
    else:
        target = own_path(target if target.startswith("/admin") else "", default="/admin")
    try:
        url, attempt = await provider.begin(_redirect_uri(house))
    except LabLinkError as exc:
        if whom == "pool":
            raise
        return _to_login(exc, target)
    journey = _Journey(_NAME, whom, pool, target, attempt, house.db.now().timestamp() + ATTEMPT_S)
    response = RedirectResponse(url, status_code=303)
    sealed = house.keys.seal(json.dumps(asdict(journey)))
    set_cookie(response, _cookie(house), sealed, max_age_s=ATTEMPT_S, secure=is_secure(house))
    return response


@router.get("/callback")
async def callback(
    request: Request,
    house: TheHouse,
    address: Address,
    state: Word = None,
    code: Word = None,
    error: Word = None,
    iss: Word = None,
) -> Response:
    """Takes the browser back: the journey must be its own, under way, and not ended before."""
    provider = _provider(house)
    journey = _find_journey(request, house, provider, state or "")
    try:
        if iss is not None and iss.rstrip("/") != provider.issuer.rstrip("/"):
            raise Unauthenticated("The answer came from another provider than ours. Start again.", code="oidc_failed")
        if error is not None or not code:
            raise Unauthenticated("The organisation's sign-in was broken off there. Start again.", code="oidc_refused")
        vouched = await provider.finish(_redirect_uri(house), code, journey.attempt)
        response = await _arrive(request, house, journey, vouched, address)
    except LabLinkError as exc:
        if journey.whom == "pool":
            raise
        response = _to_login(exc, journey.target)
    # The code stands in this page's address.
    response.headers["Referrer-Policy"] = "no-referrer"
    clear_cookie(response, _cookie(house), secure=is_secure(house))
    return response


@router.post("/logout")
async def logout(request: Request, house: TheHouse) -> Response:
    """Forgets the person in this browser; the seat stays where it is. Admins sign out by /logout."""
    await read_form(request)
    response = RedirectResponse("/", status_code=303)
    forget_person(response, house)
    return response


def own_path(target: str, *, default: str) -> str:
    """The target if it is a path of this server and nothing that a browser would take for more; else the default."""
    is_ours = target.startswith("/") and not target.startswith(("//", "/oidc", "/api", "/_nicegui"))
    is_plain = target.isascii() and target.isprintable() and not set(target) & set('\\ "<>') and "//" not in target
    return target if is_ours and is_plain else default


async def _arrive(request: Request, house: House, journey: _Journey, vouched: Vouched, address: str | None) -> Response:
    response = RedirectResponse(journey.target, status_code=303)
    if journey.whom == "admin":
        hours = house.settings.server.session_hours
        secret = await sign_in_by_oidc(
            house.db,
            vouched,
            settings=house.settings.oidc,
            session_hours=hours,
            address=address,
            user_agent=request.headers.get("user-agent"),
        )
        set_session(response, secret, hours=hours, secure=is_secure(house))
        return response
    if vouched.email is None:
        raise Forbidden("The organisation's sign-in tells no verified e-mail of yours. Ask an organiser.")
    pool = await get_pool(house.db, journey.pool or "")
    if pool.oidc_group is not None and pool.oidc_group not in vouched.groups:
        raise Forbidden(f"{pool.name} is for a group that your account is not in. Ask an organiser.")
    set_person(response, request, house, vouched, asked_groups=await list_oidc_groups(house.db))
    return response


def _find_journey(request: Request, house: House, provider: Provider, state: str) -> _Journey:
    opened = house.keys.unseal(request.cookies.get(_cookie(house), ""))
    said = json.loads(opened) if opened else {}
    if said.get("kind") == _NAME:
        journey = _Journey(**{**said, "attempt": Attempt(**said["attempt"])})
        now = house.db.now().timestamp()
        is_own = hmac.compare_digest(journey.attempt.state.encode(), state.encode())
        if is_own and journey.until > now and provider.spend(state, until=journey.until, now=now):
            return journey
    raise Unauthenticated(_STRANGE, code="oidc_state")


def _provider(house: House) -> Provider:
    if house.oidc is None:
        raise NotFound("This server has no sign-in of an organisation; see oidc.issuer in its configuration.")
    return house.oidc


def _to_login(exc: LabLinkError, target: str) -> Response:
    return RedirectResponse(f"/login?error={exc.error_code}&next={quote(target)}", status_code=303)


def _redirect_uri(house: House) -> str:
    return f"{house.settings.public_url}/oidc/callback"


def _cookie(house: House) -> str:
    return named(_NAME, secure=is_secure(house))
