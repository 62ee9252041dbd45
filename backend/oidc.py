"""The organisation's sign-in (OpenID Connect): where people are sent, and whom the provider then vouches for.

Authorization code with PKCE. Nothing is asked of the provider before somebody signs in: a server starts without it.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from backend.errors import Unauthenticated, Unavailable
from backend.setting_keys import OidcSettings

# Only signatures that need the provider's private key: never "none", never one made with a secret we both know.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
LEEWAY_S = 60
ANSWER_S = 10.0
KEPT_S = 3_600
MAX_ANSWER = 1_000_000
MAX_WORD = 255
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_AWAY = "The organisation's sign-in does not answer right now. Try again in a moment."
_FAILED = "The organisation's sign-in did not work. Start again."

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One person's way to the provider and back; kept sealed in the browser meanwhile."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Vouched:
    """Who the provider says this is. ``subject`` is unique within ``issuer``; an unverified e-mail is left out."""

    issuer: str
    subject: str
    email: str | None
    name: str | None
    groups: frozenset[str]


class Provider:
    """One OpenID provider."""

    def __init__(self, settings: OidcSettings, client_secret: str | None) -> None:
        assert settings.issuer is not None
        assert settings.client_id is not None
        self._settings = settings
        self.issuer, self._client_id, self._secret = settings.issuer, settings.client_id, client_secret
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._read_at = 0.0
        self._spent: dict[str, float] = {}
        # The machine's proxies are for the world outside; loopback stays loopback.
        self._trust_env = urlsplit(self.issuer).hostname not in _LOOPBACK
        # Reading the certificates takes 20 ms, in which nothing else is served: once, not for each who comes.
        self._tls = httpx.create_ssl_context(trust_env=self._trust_env)

    async def begin(self, redirect_uri: str) -> tuple[str, Attempt]:
        """Where to send the browser, and what to remember until it is back.

        Raises:
            Unavailable: the provider does not answer.
        """
        async with self._client() as client:
            await self._discover(client)
        attempt = Attempt(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
        url: str = prepare_grant_uri(
            self._metadata["authorization_endpoint"],
            self._client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=self._settings.scopes,
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return url, attempt

    async def finish(self, redirect_uri: str, code: str, attempt: Attempt) -> Vouched:
        """Exchanges the code and reads whom the provider vouches for.

        Raises:
            Unavailable: the provider does not answer.
            Unauthenticated: it refused the code, or what it says cannot be trusted; the log says why.
        """
        async with self._client() as client:
            await self._discover(client)
            tokens = await self._exchange(client, redirect_uri, code, attempt)
            claims = await self._verify(client, tokens, attempt)
            wanted = ("email", self._settings.groups_claim.partition(".")[0])
            is_missing = any(claims.get(name) is None for name in wanted)
            endpoint = self._metadata.get("userinfo_endpoint")
            if is_missing and endpoint and isinstance(tokens.get("access_token"), str):
                claims = await self._ask_more(client, endpoint, tokens["access_token"], claims)
        return self._vouched(claims)

    def spend(self, state: str, *, until: float, now: float) -> bool:
        """Uses a state up; whether it was still unused. Remembered ``until`` it would be too old anyway."""
        self._spent = {old: end for old, end in self._spent.items() if end > now}
        is_new = state not in self._spent
        self._spent[state] = until
        return is_new

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(timeout=ANSWER_S, follow_redirects=False, trust_env=self._trust_env, verify=self._tls)

    async def _discover(self, client: httpx.AsyncClient, *, anew: bool = False) -> None:
        if self._metadata and not anew and time.monotonic() - self._read_at < KEPT_S:
            return
        found = await _get(client, self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if not isinstance(found.get("issuer"), str) or found["issuer"].rstrip("/") != self.issuer.rstrip("/"):
            raise _away(f"it calls itself {str(found.get('issuer'))[:MAX_WORD]!r}")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            if name in found or name != "userinfo_endpoint":
                self._check_endpoint(name, found.get(name))
        try:
            keys = KeySet.import_key_set(await _get(client, found["jwks_uri"]))  # type: ignore[arg-type]
        except (JoseError, ValueError, KeyError, TypeError) as exc:
            raise _away("its keys cannot be read") from exc
        self._metadata, self._keys, self._read_at = found, keys, time.monotonic()

    def _check_endpoint(self, name: str, url: object) -> None:
        try:
            parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
        except ValueError:
            parts = urlsplit("")
        local = urlsplit(self.issuer).hostname in _LOOPBACK and parts.hostname in _LOOPBACK
        if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
            raise _away(f"its {name} is not an https:// address")

    async def _exchange(
        self, client: httpx.AsyncClient, redirect_uri: str, code: str, attempt: Attempt
    ) -> dict[str, Any]:
        body = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code, code_verifier=attempt.verifier
        )
        auth = ClientAuth(self._client_id, self._secret, self._auth_method())
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        url, headers, body = auth.prepare("POST", self._metadata["token_endpoint"], headers, body)
        status, answer = await _send(client, client.build_request("POST", url, headers=headers, content=body))
        if status >= 500:
            raise _away(f"its token endpoint answered {status}")
        if status != 200:
            raise _failed(f"the code was refused: {str(answer.get('error', status))[:MAX_WORD]}")
        return answer

    def _auth_method(self) -> str:
        if not self._secret:
            return "none"
        offered = self._metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        return "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"

    async def _verify(self, client: httpx.AsyncClient, tokens: Mapping[str, Any], attempt: Attempt) -> dict[str, Any]:
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise _failed("there is no ID token")
        try:
            decoded = self._decode(token)
        except JoseError:
            # The provider may have changed its keys since we read them.
            await self._discover(client, anew=True)
            try:
                decoded = self._decode(token)
            except JoseError as exc:
                raise _failed(f"the ID token's signature: {exc}") from exc
        claims = CodeIDToken(
            decoded.claims,
            decoded.header,
            options={
                "iss": {"essential": True, "value": self._metadata["issuer"]},
                "aud": {"essential": True, "value": self._client_id},
                "sub": {"essential": True},
            },
            params={
                "nonce": attempt.nonce,
                "client_id": self._client_id,
                "access_token": tokens.get("access_token"),
            },
        )
        try:
            claims.validate(leeway=LEEWAY_S)
        except (JoseError, ValueError, TypeError) as exc:
            raise _failed(f"the ID token's claims: {exc}") from exc
        return dict(claims)

    def _decode(self, token: str) -> jwt.Token:
        assert self._keys is not None
        try:
            return jwt.decode(token, self._keys, algorithms=ALGORITHMS)
        except (ValueError, TypeError, KeyError) as exc:
            raise JoseError(f"it cannot be read ({type(exc).__name__})") from exc

    async def _ask_more(
        self, client: httpx.AsyncClient, endpoint: str, access_token: str, claims: dict[str, Any]
    ) -> dict[str, Any]:
        """Some providers tell the e-mail and the groups only here."""
        request = client.build_request("GET", endpoint, headers={"Authorization": f"Bearer {access_token}"})
        status, answer = await _send(client, request)
        if status != 200:
            logger.warning("the provider's userinfo endpoint answered %s", status)
            return claims
        if answer.get("sub") != claims["sub"]:
            raise _failed("the userinfo is another person's")
        return answer | {name: value for name, value in claims.items() if value is not None}

    def _vouched(self, claims: Mapping[str, Any]) -> Vouched:
        subject, email = claims["sub"], claims.get("email")
        if not 1 <= len(subject) <= MAX_WORD or not subject.isprintable():
            raise _failed("the subject is empty or too long")
        verified = claims.get("email_verified", True)
        is_email = isinstance(email, str) and "@" in email and len(email) < MAX_WORD and email.isprintable()
        name = claims.get("preferred_username")
        return Vouched(
            issuer=self.issuer,
            subject=subject,
            email=str(email).strip() if is_email and verified not in {False, "false"} else None,
            name=name if isinstance(name, str) and name.strip() else None,
            groups=_groups_in(claims, self._settings.groups_claim),
        )


def _groups_in(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    """The groups of a claim, which may lie within another one: realm_access.roles."""
    found: Any = claims.get(name)
    if found is None:
        found = claims
        for part in name.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    words = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    return frozenset(word for word in words if isinstance(word, str))


async def _get(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    status, answer = await _send(client, client.build_request("GET", url, headers={"Accept": "application/json"}))
    if status != 200:
        raise _away(f"{urlsplit(url).path} answered {status}")
    return answer


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> tuple[int, dict[str, Any]]:
    """Status and JSON object of the answer, read no further than it may be long; {} if it is not one."""
    content = bytearray()
    try:
        response = await client.send(request, stream=True)
        try:
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MAX_ANSWER:
                    raise _away("its answer is too long")
        finally:
            await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise _away(type(exc).__name__) from exc
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = {}
    return response.status_code, answer if isinstance(answer, dict) else {}


def _away(why: str) -> Unavailable:
    logger.warning("the provider for signing in cannot be used: %s", why)
    return Unavailable(_AWAY, code="oidc_unavailable", retry_after_s=5)


def _failed(why: str) -> Unauthenticated:
    logger.warning("a sign-in at the provider was not believed: %s", why)
    return Unauthenticated(_FAILED, code="oidc_failed")
