"""Who is asking: an agent by its token, an admin by API token or session, a browser by its cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from backend.api.cookies import browser_cookie, check_same_origin, session_cookie
from backend.errors import Forbidden, Unauthenticated
from backend.house import House
from backend.services.enrolments import AgentIdentity
from backend.services.sign_in import AdminIdentity, authenticate_api_token, find_session
from backend.services.throttles import counting_failures
from backend.states import Role

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
# Longer ones are not ours and need not be hashed.
MAX_TOKEN = 512
_bearer = HTTPBearer(auto_error=False)
_TLS = "Behind TLS its name begins with __Host-. A change also needs our own Origin."
# For the description alone: what else than a token is taken.
by_session = Depends(
    APIKeyCookie(name=session_cookie(secure=False), scheme_name="Session", description=_TLS, auto_error=False)
)
by_browser = Depends(
    APIKeyCookie(name=browser_cookie(secure=False), scheme_name="Browser", description=_TLS, auto_error=False)
)


def get_house(request: Request) -> House:
    """The house of this process."""
    house: House = request.app.state.house
    return house


def get_address(request: Request) -> str | None:
    """Where the request came from."""
    return request.client.host if request.client else None


# As coroutines, though they await nothing: FastAPI sends plain functions through its thread pool, which costs a third
# of a heartbeat.
async def _house(request: Request) -> House:
    return get_house(request)


async def _address(request: Request) -> str | None:
    return get_address(request)


TheHouse = Annotated[House, Depends(_house)]
Address = Annotated[str | None, Depends(_address)]
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


async def get_bearer(given: Credentials) -> str:
    """The token of the Authorization header.

    Raises:
        Unauthenticated: there is none.
    """
    return _check_bearer(find_bearer(given))


def read_bearer(request: Request) -> str:
    """The same, of a request that comes past the framework's dependencies.

    Raises:
        Unauthenticated: there is none.
    """
    scheme, token = get_authorization_scheme_param(request.headers.get("authorization"))
    return _check_bearer(token if scheme.lower() == "bearer" and _is_plausible(token) else None)


def find_bearer(given: Credentials) -> str | None:
    """The token of the Authorization header, if there is a plausible one."""
    return given.credentials if given and _is_plausible(given.credentials) else None


def _is_plausible(token: str) -> bool:
    return 0 < len(token) <= MAX_TOKEN and token.isascii()


def _check_bearer(token: str | None) -> str:
    if token is None:
        raise Unauthenticated("This needs a token: Authorization: Bearer …")
    return token


Bearer = Annotated[str, Depends(get_bearer)]


async def get_agent(house: TheHouse, token: Bearer, address: Address) -> AgentIdentity:
    """The VM that this agent token speaks for."""
    async with counting_failures(house.db, "agent_token", throttle=house.throttle, address=address):
        return await house.agent_tokens.authenticate(token)


async def get_admin(
    request: Request, house: TheHouse, given: Credentials, address: Address, _: Annotated[str | None, by_session]
) -> AdminIdentity:
    """The admin who asks, by API token or session cookie.

    Raises:
        Unauthenticated: neither is valid.
        Forbidden: a viewer may only look; a cookie only from our own pages.
    """
    admin = await _find_admin(request, house, given, address)
    if request.method not in SAFE_METHODS and admin.role is Role.VIEWER:
        raise Forbidden("A viewer may look but not change anything.")
    return admin


async def _find_admin(request: Request, house: House, given: Credentials, address: str | None) -> AdminIdentity:
    token = find_bearer(given)
    if token is not None:
        return await authenticate_api_token(house.db, token, throttle=house.throttle, address=address)
    cookie = request.cookies.get(session_cookie(secure=is_secure(house)))
    admin = await find_session(house.db, cookie) if cookie else None
    if admin is None:
        raise Unauthenticated("This needs an admin's API token (Authorization: Bearer …) or session.")
    if request.method not in SAFE_METHODS:
        check_same_origin(request)
    return admin


def is_secure(house: House) -> bool:
    """Whether people reach us over TLS."""
    return house.settings.public_url.startswith("https://")


Agent = Annotated[AgentIdentity, Depends(get_agent)]
Admin = Annotated[AdminIdentity, Depends(get_admin)]
