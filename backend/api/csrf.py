"""Tokens on forms: what is posted over plain HTTP must come from a form that we drew for this very browser."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from backend.api.cookies import check_same_origin
from backend.errors import Forbidden
from backend.house import House

FIELD = "form_token"
MAX_FIELDS = 100
_PURPOSE = "form"


def form_token(request: Request) -> str:
    """The token for the forms of the page that answers this request: our signature under the browser's own secret."""
    house: House = request.app.state.house
    return house.keys.sign(_PURPOSE, _browser_of(request))


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form (the first of each name), once origin and token are found to be ours.

    Raises:
        Forbidden: another site's page sent it, or the form was not drawn for this browser.
    """
    check_same_origin(request)
    house: House = request.app.state.house
    try:
        fields = parse_qs(
            (await request.body()).decode(errors="replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Forbidden("This form has more fields than any of ours.", code="wrong_form") from None
    form = {name: values[0] for name, values in fields.items()}
    browser = _browser_of(request)
    if not browser or not house.keys.is_signed(_PURPOSE, browser, form.pop(FIELD, "")):
        raise Forbidden("This form was not drawn for this browser. Reload the page and try again.", code="wrong_form")
    return form


def _browser_of(request: Request) -> str:
    owner_hash: bytes | None = getattr(request.state, "owner_hash", None)
    return owner_hash.hex() if owner_hash else ""
