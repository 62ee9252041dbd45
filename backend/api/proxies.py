"""Who really asks, when a proxy stands in front: its word is taken only if it is one that the configuration trusts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
# Read by the library that draws pages; like the others, a stranger's is dropped.
_PREFIX = b"x-forwarded-prefix"
_READ = frozenset({_FOR, _PROTO, _HOST})
_MADE_UP = _READ | {_PREFIX}
_SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss")}
_HOST_FORM = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")

Address = IPv4Address | IPv6Address


class TrustedProxies:
    """ASGI middleware, outermost: sets client, scheme and Host to what the person's browser used.

    Of a chain of proxies the last hop that is not trusted is the client: what stands before it anybody may have
    written.
    """

    def __init__(self, app: ASGIApp, *, networks: Sequence[str]) -> None:
        self._app = app
        self._networks = [ip_network(network, strict=False) for network in networks]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through, with the headers that were read (or that a stranger made up) taken away."""
        if scope["type"] in {"http", "websocket"}:
            client = scope.get("client")
            trusted = bool(self._networks) and client is not None and self._trusts(_parse(client[0]))
            if trusted:
                self._believe(scope)
            gone = _READ if trusted else _MADE_UP
            scope["headers"] = [header for header in scope["headers"] if header[0] not in gone]
        await self._app(scope, receive, send)

    def _believe(self, scope: Scope) -> None:
        hops = _values(scope, _FOR)
        if (client := self._find_client(hops)) is not None:
            scope["client"] = (str(client), 0)
        schemes = _SCHEMES.get(_last(_values(scope, _PROTO)).lower())
        if schemes:
            scope["scheme"] = schemes[scope["type"] == "websocket"]
        host = _last(_values(scope, _HOST))
        if _HOST_FORM.fullmatch(host):
            rest = [header for header in scope["headers"] if header[0] != b"host"]
            scope["headers"] = [(b"host", host.encode()), *rest]

    def _find_client(self, hops: Sequence[str]) -> Address | None:
        found: Address | None = None
        for hop in reversed(hops):
            address = _parse(hop)
            if address is None:
                break
            found = address
            if not self._trusts(address):
                break
        return found

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._networks)


def _values(scope: Scope, name: bytes) -> list[str]:
    values: Iterable[str] = (value.decode("latin-1") for key, value in scope["headers"] if key == name)
    return [part.strip() for part in ",".join(values).split(",") if part.strip()]


def _last(values: Sequence[str]) -> str:
    return values[-1] if values else ""


def _parse(hop: str) -> Address | None:
    """The address of a hop, which may carry a port: 192.0.2.7:4711, [2001:db8::7]:4711."""
    bare = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
