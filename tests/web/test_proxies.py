"""Who asks: a trusted proxy's word counts, a stranger's does not."""

from __future__ import annotations

import itertools

import httpx
import pytest

from backend.api.proxies import TrustedProxies
from backend.services.events import list_events
from tests.harness.forms import form_token
from tests.harness.pools import database_of
from tests.web.conftest import PROXY

_numbers = itertools.count()


def client_from(server, address: str, **headers: str) -> httpx.AsyncClient:
    """A client whose connections come from this address of loopback."""
    transport = httpx.AsyncHTTPTransport(local_address=address)
    return httpx.AsyncClient(base_url=server.url, transport=transport, headers=headers, trust_env=False)


async def address_seen(server, client: httpx.AsyncClient, origin: str) -> str | None:
    """The address that the server writes beside a failed sign-in."""
    token = await form_token(client, "/login")
    data = {"form_token": token, "user": "admin", "password": "wrong"}
    answer = await client.post("/login", data=data, headers={"Origin": origin})
    assert "wrong_password" in answer.headers["location"], answer.headers
    async with database_of(server) as db:
        return next(event.address for event in await list_events(db) if event.kind == "user.sign_in_failed")


async def test_a_trusted_proxy_tells_who_asks_and_under_which_name(web_server) -> None:
    headers = {
        "X-Forwarded-For": "6.6.6.6, 203.0.113.5, 10.1.2.3",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "lab.example.org",
    }
    async with client_from(web_server, PROXY, **headers) as client:
        # The hop before the last trusted one: what stands in front of it, anybody may have written.
        assert await address_seen(web_server, client, "https://lab.example.org") == "203.0.113.5"


async def test_a_stranger_that_plays_the_proxy_stays_who_it_is(web_server) -> None:
    headers = {"X-Forwarded-For": "203.0.113.6", "X-Forwarded-Host": "lab.example.org", "X-Forwarded-Prefix": "//evil"}
    async with client_from(web_server, "127.0.0.3", **headers) as client:
        assert await address_seen(web_server, client, web_server.url) == "127.0.0.3"
        assert "//evil" not in (await client.get("/login")).text
        token = await form_token(client, "/login")
        spoofed = await client.post("/login", data={"form_token": token}, headers={"Origin": "http://lab.example.org"})
        assert "wrong_origin" in spoofed.headers["location"]


@pytest.mark.parametrize(
    ("peer", "hops", "seen"),
    [
        ("10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("10.0.0.1", "203.0.113.5:4711", "203.0.113.5"),
        ("10.0.0.1", "[2001:db8::7]:4711", "2001:db8::7"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.5, 10.9.9.9", "203.0.113.5"),
        ("10.0.0.1", "10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("10.0.0.1", "203.0.113.5, nonsense", "10.0.0.1"),
        ("10.0.0.1", "nonsense, 10.0.0.8", "10.0.0.8"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("::ffff:10.0.0.1", "203.0.113.5", "203.0.113.5"),
        ("fd00::1", "203.0.113.5", "203.0.113.5"),
        ("192.0.2.1", "203.0.113.5", "192.0.2.1"),
        ("unix", "203.0.113.5", "unix"),
    ],
)
async def test_the_client_is_the_last_hop_that_is_not_trusted(peer: str, hops: str, seen: str) -> None:
    scopes = []

    async def app(scope, receive, send) -> None:
        scopes.append(scope)

    headers = [(b"x-forwarded-for", hops.encode()), (b"x-forwarded-proto", b"https"), (b"host", b"inside")]
    scope = {"type": "http", "client": (peer, 1), "scheme": "http", "headers": headers}
    await TrustedProxies(app, networks=["10.0.0.0/8", "fd00::/8"])(scope, None, None)  # type: ignore[arg-type]
    assert scopes[0]["client"][0] == seen
    assert scopes[0]["scheme"] == ("http" if peer in {"192.0.2.1", "unix"} else "https")
    assert scopes[0]["headers"] == [(b"host", b"inside")]


@pytest.mark.parametrize("host", [b"evil example", b"a/b", b"a\x00", b"", b"<script>", b"a@b"])
async def test_a_host_that_is_none_is_not_taken_from_anybody(host: bytes) -> None:
    seen = []

    async def app(scope, receive, send) -> None:
        seen.append(dict(scope["headers"])[b"host"])

    scope = {
        "type": "websocket", "client": ("10.0.0.1", 1), "scheme": "ws",
        "headers": [(b"host", b"inside"), (b"x-forwarded-host", host), (b"x-forwarded-proto", b"gopher")],
    }  # fmt: skip
    await TrustedProxies(app, networks=["10.0.0.0/8"])(scope, None, None)  # type: ignore[arg-type]
    assert (seen, scope["scheme"]) == ([b"inside"], "ws")
