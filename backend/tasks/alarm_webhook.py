"""Alarms as an HTTP POST: signed as Standard Webhooks 1.0.0 says, with a body that Slack and its like show."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time

import httpx

from backend.services.alarm_deliveries import Delivery
from backend.tasks.sending import NotSent, remedy_of, title_of

ANSWER_S = 10.0
_KEY_PREFIX = "whsec_"


class Webhook:
    """One address. ``secret`` signs (without one nothing is signed); its address may be a secret too, as Slack's is."""

    def __init__(self, url: str, secret: str | None, public_url: str) -> None:
        self._url, self._public_url = url, public_url
        self._key = _key_of(secret) if secret else None
        # No environment: a .netrc or a proxy of this machine's user is not ours to use. The certificates once: to read
        # them takes 20 ms, in which nothing else is served.
        self._tls = httpx.create_ssl_context(trust_env=False)

    async def send(self, delivery: Delivery) -> None:
        """Posts it. A redirection is a refusal: whoever answers there must not choose where we knock next.

        Raises:
            NotSent: there was no answer of 2xx.
        """
        body = json.dumps(self._body(delivery)).encode()
        headers = {"Content-Type": "application/json", "User-Agent": "LabLink", **self._sign(delivery.id, body)}
        try:
            async with (
                httpx.AsyncClient(
                    timeout=ANSWER_S, follow_redirects=False, trust_env=False, verify=self._tls
                ) as client,
                # Streamed, so that a body of any length is left unread.
                client.stream("POST", self._url, content=body, headers=headers) as answer,
            ):
                if not answer.is_success:
                    raise NotSent(f"the answer was {answer.status_code}")
        except httpx.TimeoutException as exc:
            raise NotSent(f"no answer within {ANSWER_S:.0f} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            # The name alone: its words may hold the address.
            raise NotSent(f"could not be reached ({type(exc).__name__})") from exc

    def _body(self, delivery: Delivery) -> dict[str, object]:
        place = self._public_url + str(delivery.message["place"])
        text = " ".join(part for part in (title_of(delivery), remedy_of(delivery)) if part)
        return {"text": f"{escape(text)} <{place}|Open>", "alarm": {**delivery.message, "place": place}}

    def _sign(self, delivery_id: int, body: bytes) -> dict[str, str]:
        """The headers of https://www.standardwebhooks.com: the receiver checks them with any of its libraries."""
        name, now = f"alarm_{delivery_id}", str(int(time.time()))
        headers = {"webhook-id": name, "webhook-timestamp": now}
        if self._key is not None:
            digest = hmac.digest(self._key, f"{name}.{now}.".encode() + body, hashlib.sha256)
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


def escape(text: str) -> str:
    """Text for Slack, where ``<!channel>`` calls everybody and ``<http…|words>`` is a link."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _key_of(secret: str) -> bytes:
    if secret.startswith(_KEY_PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(_KEY_PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()
