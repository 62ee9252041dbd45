"""What every response tells the browser about trust: whose code may run, who may frame us, what may be kept."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

YEAR_S = 31_536_000
# Vue compiles templates in the browser, hence 'unsafe-eval'; style attributes are everywhere, hence 'unsafe-inline'.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self'{nonce} 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_DATA_POLICY = "default-src 'none'; frame-ancestors 'none'"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_KEPT_BY_NOBODY = (b"text/html", b"application/json")
_Headers = list[tuple[bytes, bytes]]


class SecurityHeaders:
    """ASGI middleware: sets what a response has not set itself. ``secure``: people reach us over TLS."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        self._app = app
        always = _ALWAYS | ({"Strict-Transport-Security": f"max-age={YEAR_S}"} if secure else {})
        # As they are sent: every answer passes here, and the names are compared as bytes.
        self._of_pages = _encode({**always, "Content-Security-Policy": page_policy()})
        self._of_data = _encode({**always, "Content-Security-Policy": _DATA_POLICY})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = self._fill(list(message["headers"]))
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _fill(self, headers: _Headers) -> _Headers:
        present = dict(headers)
        kind = present.get(b"content-type", b"").partition(b";")[0]
        ours = self._of_pages if kind == b"text/html" else self._of_data
        headers += [header for header in ours if header[0] not in present]
        if kind in _KEPT_BY_NOBODY and b"cache-control" not in present:
            headers.append((b"cache-control", b"no-store"))
        return headers


def _encode(headers: dict[str, str]) -> _Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def page_policy(nonce: str = "") -> str:
    """The Content-Security-Policy of a page; inline scripts run only if they carry the nonce."""
    return _PAGE_POLICY.format(nonce=f" 'nonce-{nonce}'" if nonce else "")
