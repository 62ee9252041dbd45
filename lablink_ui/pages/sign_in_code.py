"""The second step of a sign-in: the code of the app."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from backend.api.auth import get_address, get_house, is_secure
from backend.api.cookies import set_session, set_ticket, ticket_cookie
from backend.api.csrf import read_form
from backend.errors import LabLinkError
from backend.services.sign_in import finish_sign_in
from lablink_ui.frame import page_at, public_frame
from lablink_ui.pages.sign_in import ERRORS, safe_target
from lablink_ui.parts import Field, form_token_field, tag

router = APIRouter(include_in_schema=False)
MAX_CODE = 20


@page_at("/login/code")
async def login_code(request: Request) -> Response | None:
    """The page that asks for the code."""
    target = safe_target(request.query_params.get("next", ""))
    if not request.cookies.get(ticket_cookie(secure=is_secure(get_house(request)))):
        return RedirectResponse(f"/login?error=step_expired&next={quote(target)}", status_code=303)
    error = request.query_params.get("error")
    with (
        public_frame("One more step") as frame,
        tag("form", "card pad", method="post", action=f"/login/code?next={quote(target)}"),
    ):
        form_token_field()
        frame.subtitle.say("Enter the code that your app shows for LabLink.")
        Field(
            "Code",
            name="code",
            testid="login-code",
            hint="No phone at hand? Another admin can reset your second step.",
            autocomplete="one-time-code",
            inputmode="numeric",
            required=True,
            autofocus=True,
        )
        words = ERRORS.get(error, "That did not work.") if error else ""
        tag("div", "error", words, data_testid="login-error", role="alert")
        tag("button", "button primary big", "Sign in", type="submit", data_testid="login-code-submit")
        tag("a", "sub", "Sign in as somebody else", href="/login")
    return None


@router.post("/login/code")
async def post_login_code(request: Request) -> Response:
    """Takes the form."""
    house, target = get_house(request), safe_target(request.query_params.get("next", ""))
    hours, secure = house.settings.server.session_hours, is_secure(house)
    try:
        form = await read_form(request)
        secret = await finish_sign_in(
            house.db,
            request.cookies.get(ticket_cookie(secure=secure), "")[:500],
            form.get("code", "")[:MAX_CODE],
            keys=house.keys,
            throttle=house.throttle,
            session_hours=hours,
            address=get_address(request),
            user_agent=request.headers.get("user-agent"),
        )
    except LabLinkError as exc:
        page = "/login" if exc.error_code == "step_expired" else "/login/code"
        return RedirectResponse(f"{page}?error={exc.error_code}&next={quote(target)}", status_code=303)
    response = RedirectResponse(target, status_code=303)
    set_session(response, secret, hours=hours, secure=secure)
    set_ticket(response, "", max_age_s=0, secure=secure)
    return response
