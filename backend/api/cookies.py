"""Cookies: one that knows a browser (a seat is its property), one that holds an admin's session."""

from __future__ import annotations

import re
from http.cookies import SimpleCookie

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import Forbidden
from backend.services.tokens import hash_token, new_token

BROWSER_DAYS = 90
_TOKEN = re.compile(r"[A-Za-z0-9_-]{40,64}")
# Pages are drawn elsewhere; these paths are never a browser's first page.
_NOT_PAGES = ("/api", "/_nicegui", "/assets", "/healthz", "/readyz", "/metrics")


def named(name: str, *, secure: bool) -> str:
    """The name of a cookie of ours: behind TLS with the prefix that forbids a domain and plain HTTP."""
    return f"__Host-{name}" if secure else name


def browser_cookie(*, secure: bool) -> str:
    """The name of the browser's cookie."""
    return named("lablink-browser", secure=secure)


def session_cookie(*, secure: bool) -> str:
    """The name of the admin's cookie."""
    return named("lablink-session", secure=secure)


class BrowserCookie:
    """ASGI middleware: gives every browser its secret with its first page, and every request its owner hash."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        self._secure = secure
        self._name = browser_cookie(secure=secure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reads the cookie, or sets one."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        # Machines send none: nothing is parsed for them.
        has_cookies = any(name == b"cookie" for name, _ in scope["headers"])
        secret = HTTPConnection(scope).cookies.get(self._name, "") if has_cookies else ""
        known = _TOKEN.fullmatch(secret) is not None
        is_page = scope["type"] == "http" and scope["method"] == "GET" and not scope["path"].startswith(_NOT_PAGES)
        if known or not is_page:
            state["owner_hash"] = hash_token(secret) if known else None
            await self._app(scope, receive, send)
            return
        secret = new_token()
        state["owner_hash"] = hash_token(secret)

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = _cookie(self._name, secret, max_age_s=BROWSER_DAYS * 86_400, secure=self._secure)
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            await send(message)

        await self._app(scope, receive, send_with_cookie)


def set_session(response: Response, secret: str, *, hours: int, secure: bool) -> None:
    """Signs this browser in."""
    set_cookie(response, session_cookie(secure=secure), secret, max_age_s=hours * 3_600, secure=secure)


def clear_session(response: Response, *, secure: bool) -> None:
    """Signs this browser out."""
    clear_cookie(response, session_cookie(secure=secure), secure=secure)


def set_cookie(response: Response, name: str, value: str, *, max_age_s: int, secure: bool) -> None:
    """Sets a cookie that no script can read and that other sites' forms do not send."""
    response.headers.append("set-cookie", _cookie(name, value, max_age_s=max_age_s, secure=secure))


def clear_cookie(response: Response, name: str, *, secure: bool) -> None:
    """Takes a cookie away."""
    set_cookie(response, name, "", max_age_s=0, secure=secure)


def ticket_cookie(*, secure: bool) -> str:
    """The name of the cookie that lives between the two steps of a sign-in."""
    return "__Host-lablink-step" if secure else "lablink-step"


def set_ticket(response: Response, ticket: str, *, max_age_s: int, secure: bool) -> None:
    """Remembers that the first step is done (an empty ticket with no age: forgets it)."""
    cookie = _cookie(ticket_cookie(secure=secure), ticket, max_age_s=max_age_s, secure=secure)
    response.headers.append("set-cookie", cookie)


def check_same_origin(request: Request) -> None:
    """Refuses a request by cookie that another site's page made.

    Raises:
        Forbidden: no Origin header, or one that is not ours.
    """
    if not is_same_origin(request):
        raise Forbidden("With a cookie, this needs a request from a page of this server (Origin).", code="wrong_origin")


def is_same_origin(connection: HTTPConnection) -> bool:
    """Whether the Origin header names this very server."""
    host = connection.headers.get("host", "")
    return connection.headers.get("origin") in {f"{scheme}://{host}" for scheme in ("http", "https")}


def _cookie(name: str, value: str, *, max_age_s: int, secure: bool) -> str:
    cookie: SimpleCookie = SimpleCookie()
    cookie[name] = value
    morsel = cookie[name]
    morsel["path"], morsel["max-age"], morsel["httponly"], morsel["samesite"] = "/", max_age_s, True, "Lax"
    if secure:
        morsel["secure"] = True
    return morsel.OutputString()
