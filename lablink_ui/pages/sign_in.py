"""Signing in and out: plain forms over plain HTTP, since a socket cannot set cookies."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from nicegui import ui

from backend.api.auth import get_address, get_house, is_secure
from backend.api.cookies import check_same_origin, clear_session, session_cookie, set_session
from backend.errors import LabLinkError
from backend.services.sign_in import sign_in, sign_out
from lablink_ui.frame import public_frame
from lablink_ui.parts import Field, tag
from lablink_ui.visits import find_visit, follow

router = APIRouter(include_in_schema=False)
MAX_PASSWORD = 1_000
_CONSOLE = re.compile(r"/admin(?:[/?][\w./?&=%+~-]*)?", re.ASCII)
_ERRORS = {
    "wrong_password": "The user name or the password is wrong.",
    "throttled": "Too many failed attempts from here. Wait a few minutes and try again.",
    "unavailable": "The database does not answer right now. Try again in a moment.",
    "ended": "Your session has ended. Sign in again to go on.",
    "wrong_origin": "The form was not sent from this server's own page. Try again here.",
}


@ui.page("/login")
async def login(request: Request) -> Response | None:
    """The sign-in page."""
    target = _safe(request.query_params.get("next", ""))
    if await find_visit(request):
        return RedirectResponse(target, status_code=303)
    error = request.query_params.get("error")
    with public_frame("Sign in") as frame:
        frame.subtitle.say("For organisers. Researchers need no account.")
        with tag("form", "card pad", method="post", action=f"/login?next={quote(target)}"):
            Field("User", name="user", testid="login-user", value="admin", autocomplete="username", required=True)
            Field(
                "Password",
                name="password",
                kind="password",
                testid="login-password",
                autocomplete="current-password",
                required=True,
                autofocus=True,
            )
            words = _ERRORS.get(error, "That did not work.") if error else ""
            tag("div", "error", words, data_testid="login-error", role="alert")
            tag("button", "button primary big", "Sign in", type="submit", data_testid="login-submit")
        await follow(get_house(request), frame)
    return None


@router.post("/login")
async def post_login(request: Request) -> Response:
    """Takes the form."""
    house, target = get_house(request), _safe(request.query_params.get("next", ""))
    form = parse_qs((await request.body()).decode(errors="replace"), keep_blank_values=True)
    try:
        check_same_origin(request)
        secret = await sign_in(
            house.db,
            form.get("user", [""])[0].replace("\x00", ""),
            form.get("password", [""])[0][:MAX_PASSWORD],
            throttle=house.throttle,
            session_hours=house.settings.server.session_hours,
            address=get_address(request),
            user_agent=request.headers.get("user-agent"),
        )
    except LabLinkError as exc:
        return RedirectResponse(f"/login?error={exc.error_code}&next={quote(target)}", status_code=303)
    response = RedirectResponse(target, status_code=303)
    set_session(response, secret, hours=house.settings.server.session_hours, secure=is_secure(house))
    return response


@router.post("/logout")
async def post_logout(request: Request) -> Response:
    """Ends the session, here and in the database."""
    check_same_origin(request)
    house = get_house(request)
    await sign_out(house.db, request.cookies.get(session_cookie(secure=is_secure(house)), ""))
    response = RedirectResponse("/login", status_code=303)
    clear_session(response, secure=is_secure(house))
    return response


def _safe(target: str) -> str:
    """Only paths of our own console: nobody is sent elsewhere by a link to the sign-in page."""
    return target if _CONSOLE.fullmatch(target) and "//" not in target else "/admin"
