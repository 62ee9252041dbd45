"""Signing in and out: plain forms over plain HTTP, since a socket cannot set cookies."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from nicegui import ui

from backend.api.auth import get_address, get_house, is_secure
from backend.api.cookies import check_same_origin, clear_session, session_cookie, set_session, set_ticket
from backend.errors import LabLinkError
from backend.services.sign_in import TICKET_S, SecondStep, sign_in, sign_out
from lablink_ui.frame import public_frame
from lablink_ui.parts import Field, tag
from lablink_ui.visits import find_visit

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
}


@ui.page("/login")
async def login(request: Request) -> Response | None:
    """The sign-in page."""
    target = safe_target(request.query_params.get("next", ""))
    if await find_visit(request):
        return RedirectResponse(target, status_code=303)
    error = request.query_params.get("error")
    with (
        public_frame("Sign in") as frame,
        tag("form", "card pad", method="post", action=f"/login?next={quote(target)}"),
    ):
        frame.subtitle.say("For organisers. Researchers need no account.")
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
        words = ERRORS.get(error, "That did not work.") if error else ""
        tag("div", "error", words, data_testid="login-error", role="alert")
        tag("button", "button primary big", "Sign in", type="submit", data_testid="login-submit")
    return None


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Takes the form."""
    house, target = get_house(request), safe_target(request.query_params.get("next", ""))
    form = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
    try:
        check_same_origin(request)
        found = await sign_in(
            house.db,
            form.get("user", [""])[0].replace("\x00", ""),
            form.get("password", [""])[0][:MAX_PASSWORD],
            keys=house.keys,
            throttle=house.throttle,
            session_hours=house.settings.server.session_hours,
            address=get_address(request),
            user_agent=request.headers.get("user-agent"),
        )
    except LabLinkError as exc:
        return RedirectResponse(f"/login?error={exc.error_code}&next={quote(target)}", status_code=303)
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
    check_same_origin(request)
    house = get_house(request)
    await sign_out(
        house.db, request.cookies.get(session_cookie(secure=is_secure(house)), ""), address=get_address(request)
    )
    response = RedirectResponse("/login", status_code=303)
    clear_session(response, secure=is_secure(house))
    return response


def safe_target(target: str) -> str:
    """Only paths of our own console: nobody is sent elsewhere by a link to the sign-in page."""
    return target if _CONSOLE.fullmatch(target) and "//" not in target else "/admin"
