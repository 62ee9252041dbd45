"""OpenID providers in processes of their own: an honest one (oidc-provider-mock), and one that lies as it is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.harness.waiting import until

CLIENT_ID, CLIENT_SECRET = "lablink-test", "the-secret-of-the-client"


class ProviderProcess:
    """Starts and stops a provider on one port; the two kinds can follow each other there."""

    def __init__(self, port: int) -> None:
        self.port, self.issuer = port, f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start_honest(self) -> None:
        """oidc-provider-mock: whoever signs in is made with what `put_user` said."""
        await self._start("-m", "oidc_provider_mock", "--port", str(self.port))

    async def start_liar(self) -> None:
        """The provider below."""
        await self._start("-m", "tests.harness.oidc_provider", str(self.port))

    async def _start(self, *arguments: str) -> None:
        self.stop()
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

        async def answers() -> bool:
            async with httpx.AsyncClient(trust_env=False) as client:
                return (await client.get(f"{self.issuer}/.well-known/openid-configuration")).status_code == 200

        await until(answers, what="the provider answers")

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def put_user(self, subject: str, **claims: Any) -> None:
        """What the honest provider knows of somebody."""
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.put(f"{self.issuer}/users/{subject}", json=claims)).status_code == 204

    async def tell(self, lie: str = "", **claims: Any) -> None:
        """How the liar lies from now on, and what it says of the person."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{self.issuer}/lie", json={"lie": lie, "claims": claims})
            assert answer.status_code == 200


class Liar(BaseHTTPRequestHandler):
    """Says yes to everybody at once; its ID tokens are right but for the lie of the day."""

    key: ClassVar[RSAKey]
    other_key: ClassVar[RSAKey]
    codes: ClassVar[dict[str, dict[str, str]]] = {}
    lie: ClassVar[str] = ""
    claims: ClassVar[dict[str, Any]] = {}
    protocol_version = "HTTP/1.1"

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if parts.path == "/.well-known/openid-configuration":
            self._answer(self._metadata())
        elif parts.path == "/jwks":
            self._answer({"keys": [self.key.as_dict(private=False)]})
        elif parts.path == "/oauth2/authorize":
            self._authorize(query)
        elif parts.path == "/userinfo":
            self._answer({"sub": "another person" if self.lie == "another_person" else "s-1", "email": "told@late.org"})
        else:
            self._answer({}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/lie":
            Liar.lie, Liar.claims = json.loads(body)["lie"], json.loads(body)["claims"]
            self._answer({})
        else:
            self._token({key: values[0] for key, values in parse_qs(body).items()})

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": "https://elsewhere.example" if self.lie == "metadata_issuer" else self.issuer,
            "authorization_endpoint": f"{self.issuer}/oauth2/authorize",
            "token_endpoint": f"{self.issuer}/oauth2/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
        }

    def _authorize(self, query: dict[str, str]) -> None:
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        answer = {"state": query["state"], "code": code}
        if self.lie == "error":
            answer = {
                "state": query["state"],
                "error": "access_denied",
                "error_description": "<script>alert(1)</script>",
            }
        if self.lie == "other_provider":
            answer["iss"] = "https://elsewhere.example"
        self.send_response(302)
        self.send_header("Location", f"{query['redirect_uri']}?{urlencode(answer)}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _token(self, form: dict[str, str]) -> None:
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        expected = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if self.lie == "away":
            self._answer({"error": "temporarily_unavailable"}, 503)
        elif self.headers.get("Authorization") != f"Basic {expected}":
            self._answer({"error": "invalid_client"}, 401)
        elif asked is None or asked["code_challenge"] != challenge.rstrip(b"=").decode():
            self._answer({"error": "invalid_grant"}, 400)
        else:
            self._answer({"access_token": "access", "token_type": "Bearer", "id_token": self._id_token(asked)})

    def _id_token(self, asked: Mapping[str, str]) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self.issuer, "sub": "s-1", "aud": CLIENT_ID, "exp": now + 300, "iat": now, "nonce": asked["nonce"],
        }  # fmt: skip
        claims |= {"email": "kim@lab.org", "preferred_username": "kim"} | self.claims
        claims |= {
            "nonce": {"nonce": "another"},
            "issuer": {"iss": "https://elsewhere.example"},
            "audience": {"aud": "another client"},
            "audiences": {"aud": ["another client", CLIENT_ID], "azp": "another client"},
            "expired": {"exp": now - 120},
            "future": {"iat": now + 9_999, "nbf": now + 9_999},
            "at_hash": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
            "no_email": {"email": None},
            "another_person": {"email": None},
        }.get(self.lie, {})
        for missing in ("nonce", "exp", "sub", "aud"):
            if self.lie == f"no_{missing}":
                del claims[missing]
        if self.lie == "none":
            return f"{_b64({'alg': 'none'})}.{_b64(claims)}."
        if self.lie == "hs256":
            # Signed with what everybody knows: the public key as if it were a shared secret.
            signed = f"{_b64({'alg': 'HS256', 'kid': 'first'})}.{_b64(claims)}"
            mac = hmac.digest(self.key.as_pem(private=False), signed.encode(), "sha256")
            return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        key = self.other_key if self.lie == "signature" else self.key
        token = jwt.encode({"alg": "RS256", "kid": "first"}, claims, key)
        return "not.a.token" if self.lie == "garbage" else token

    def _answer(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps({key: value for key, value in content.items() if value is not None}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


if __name__ == "__main__":
    Liar.key, Liar.other_key = (RSAKey.generate_key(2048, {"kid": "first"}, private=True) for _ in range(2))
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Liar).serve_forever()
