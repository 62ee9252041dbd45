"""The server under load: where it is, and whether it is this machine's own."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")


class WrongTarget(Exception):
    """The address cannot be used; the message is one line for people."""


@dataclass(frozen=True, slots=True)
class Target:
    """A server. ``addresses``: what its name stands for; the first one is connected to."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def netloc(self) -> str:
        """Its name as a browser writes it into Host; an IPv6 address in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.is_secure else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """As a browser writes it into Origin."""
        return f"{self.scheme}://{self.netloc}"

    @property
    def is_secure(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.scheme == "https"

    @property
    def is_loopback(self) -> bool:
        """Whether every address that its name stands for is this machine's own."""
        return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in self.addresses)


def find_target(url: str) -> Target:
    """Reads an address such as http://127.0.0.1:8080.

    Raises:
        WrongTarget: it is none, or its name stands for nothing.
    """
    usage = f"'{url[:200]}' is no address of a server: give http://127.0.0.1:8080 or the like, without a path"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WrongTarget(usage) from None
    host = parts.hostname or ""
    has_more = "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(host) or has_more:
        raise WrongTarget(usage)
    port = port if port is not None else (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise WrongTarget(f"{host} stands for no address: {getattr(exc, 'strerror', None) or exc}") from None
    return Target(parts.scheme, host, port, tuple(dict.fromkeys(str(each[4][0]) for each in found)))
