"""Signing in and out: plain forms over plain HTTP, since a socket cannot set cookies."""

from __future__ import annotations

import re
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from backend.api.auth import get_address, get_house, is_secure
from backend.api.cookies import clear_session, session_cookie, set_session, set_ticket
from backend.api.csrf import read_form
from backend.errors import LabLinkError
from backend.services.sign_in import TICKET_S, SecondStep, sign_in, sign_out
from lablink_ui.frame import page_at, public_frame
from lablink_ui.parts import Field, form_token_field, tag
from lablink_ui.visits import find_visit, follow
from lablink_ui.words import duration

router = APIRouter(include_in_schema=False)
MAX_PASSWORD = 1_000
_CONSOLE = re.compile(r"/admin(?:[/?][\w./?&=%+~-]*)?", re.ASCII)
ERRORS = {
    "wrong_password": "The user name or the password is wrong.",
    "throttled": "Too many failed attempts from here. Wait a few minutes and try again.",
    "unavailable": "The database does not answer right now. Try again in a moment.",
    "ended": "Your session has ended. Sign in again to go on.",
    "step_expired": "That took too long. Sign in again.",
    "wrong_code": "This code is wrong or was used already. Wait for the next one.",
    "wrong_origin": "The form was not sent from this server's own page. Try again here.",
    "wrong_form": "The form was too old. Try again here.",
    "oidc_unavailable": "The organisation's sign-in does not answer right now. Try again in a moment.",
    "oidc_failed": "The organisation's sign-in did not work. Try again.",
    "oidc_refused": "The organisation's sign-in was broken off there. Try again.",
    "oidc_no_role": "Your account is in none of the groups that may use this console. Ask an admin.",
    "oidc_disabled": "Your account was disabled here. Ask an admin.",
}


@page_at("/login")
async def login(request: Request) -> Response | None:
    """The sign-in page."""
    target = safe_target(request.query_params.get("next", ""))
    if await find_visit(request):
        return RedirectResponse(target, status_code=303)
    with public_frame("Sign in") as frame:
        frame.subtitle.say("For organisers. Researchers need no account.")
        with tag("form", "card pad", method="post", action=f"/login?next={quote(target)}"):
            _draw_fields(request, target)
        await follow(get_house(request), frame)
    return None


def _draw_fields(request: Request, target: str) -> None:
    house = get_house(request)
    form_token_field()
    if request.query_params.get("welcome"):
        tag("p", "note", "Your password is set. Sign in with it.", role="status")
    Field(
        "User",
        name="user",
        testid="login-user",
        value=request.query_params.get("user", "admin")[:80],
        autocomplete="username",
        autocapitalize="none",
        required=True,
    )
    Field(
        "Password",
        name="password",
        kind="password",
        testid="login-password",
        autocomplete="current-password",
        required=True,
        autofocus=True,
    )
    tag("div", "error", _said(request), data_testid="login-error", role="alert")
    tag("button", "button primary big", "Sign in", type="submit", data_testid="login-submit")
    if house.oidc:
        with tag("a", "button big", href=f"/oidc/login?for=admin&next={quote(target)}", data_testid="login-oidc"):
            tag("span", "", house.settings.oidc.button)


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Takes the form."""
    house, target = get_house(request), safe_target(request.query_params.get("next", ""))
    try:
        form = await read_form(request)
        found = await sign_in(
            house.db,
            form.get("user", "").replace("\x00", ""),
            form.get("password", "")[:MAX_PASSWORD],
            keys=house.keys,
            throttle=house.throttle,
            session_hours=house.settings.server.session_hours,
            address=get_address(request),
            user_agent=request.headers.get("user-agent"),
        )
    except LabLinkError as exc:
        wait = {"Retry-After": str(exc.retry_after_s)} if exc.retry_after_s else None
        again = f"&wait_s={exc.retry_after_s}" if exc.retry_after_s else ""
        return RedirectResponse(
            f"/login?error={exc.error_code}{again}&next={quote(target)}", status_code=303, headers=wait
        )
    if isinstance(found, SecondStep):
        response = RedirectResponse(f"/login/code?next={quote(target)}", status_code=303)
        set_ticket(response, found.ticket, max_age_s=TICKET_S, secure=is_secure(house))
        return response
    response = RedirectResponse(target, status_code=303)
    set_session(response, found, hours=house.settings.server.session_hours, secure=is_secure(house))
    return response


@router.post("/logout")
async def post_logout(request: Request) -> Response:
    """Ends the session, here and in the database."""
    await read_form(request)
    house = get_house(request)
    await sign_out(
        house.db, request.cookies.get(session_cookie(secure=is_secure(house)), ""), address=get_address(request)
    )
    response = RedirectResponse("/login", status_code=303)
    clear_session(response, secure=is_secure(house))
    return response


def _said(request: Request) -> str:
    error, wait_s = request.query_params.get("error"), request.query_params.get("wait_s", "")
    if error == "throttled" and wait_s.isdecimal():
        return f"Too many failed attempts from here. Try again in {duration(int(wait_s[:6]))}."
    return ERRORS.get(error, "That did not work.") if error else ""


def safe_target(target: str) -> str:
    """Only paths of our own console: nobody is sent elsewhere by a link to the sign-in page."""
    return target if _CONSOLE.fullmatch(target) and "//" not in target else "/admin"
