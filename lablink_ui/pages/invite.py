"""The page of an invite: its name is fixed, the password is chosen here. A plain form, so that browsers can keep it."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from backend.api.auth import get_address, get_house
from backend.api.csrf import read_form
from backend.errors import LabLinkError
from backend.services.invites import accept_invite, find_invite
from backend.services.passwords import MIN_PASSWORD
from lablink_ui.forms import password_field
from lablink_ui.frame import page_at, public_frame
from lablink_ui.parts import form_token_field, link_button, tag

router = APIRouter(include_in_schema=False)
_ERRORS = {
    "weak_password": f"Choose {MIN_PASSWORD} characters or more, and not your name.",
    "not_the_same": "The two passwords are not the same.",
    "user_exists": "There is a user of this name already. Ask for another invite.",
    "unavailable": "The database does not answer right now. Try again in a moment.",
    "wrong_form": "The form was too old. Try again here.",
    "wrong_origin": "The form was not sent from this server's own page. Try again here.",
}


@page_at("/invite/{token}")
async def invite(request: Request, token: str) -> None:
    """Choose a password."""
    found = await find_invite(get_house(request).db, token)
    if found is None:
        with public_frame("This link does not work") as frame:
            frame.subtitle.say("It was used already, was withdrawn or has expired. Ask whoever sent it for a new one.")
            link_button("Sign in", "/login", classes="primary big")
        return
    error = request.query_params.get("error")
    title = "Choose a new password" if found.is_reset else "Welcome to LabLink"
    with public_frame(title) as frame, tag("form", "card pad", method="post", action=f"/invite/{quote(token)}"):
        frame.subtitle.say(f"You are {found.name}, with the role {found.role}. This link works once.")
        form_token_field()
        # For password managers: it is the link, not this field, that says who.
        tag("input", "hidden", name="user", value=found.name, autocomplete="username", hidden=True)
        hint = f"{MIN_PASSWORD} characters or more; a few unrelated words are easy to remember"
        password_field("Password", "password", testid="invite-password", is_new=True, hint=hint, autofocus=True)
        password_field("The same again", "again", testid="invite-again", is_new=True)
        words = _ERRORS.get(error, "That did not work.") if error else ""
        tag("div", "error", words, data_testid="invite-error", role="alert")
        tag("button", "button primary big", "Set password", type="submit", data_testid="invite-submit")


@router.post("/invite/{token}")
async def post_invite(request: Request, token: str) -> Response:
    """Takes the form."""
    try:
        form = await read_form(request)
        password = form.get("password", "")
        if password != form.get("again", ""):
            return _back(token, "not_the_same")
        name = await accept_invite(get_house(request).db, token, password, address=get_address(request))
    except LabLinkError as exc:
        return _back(token, exc.error_code)
    return RedirectResponse(f"/login?welcome=1&user={quote(name)}", status_code=303)


def _back(token: str, error: str) -> Response:
    headers = {"Referrer-Policy": "no-referrer"}
    return RedirectResponse(f"/invite/{quote(token)}?error={error}", status_code=303, headers=headers)
