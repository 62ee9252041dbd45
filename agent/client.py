"""The agent's side of the wire: one request at a time, with time limits, and an answer or a reason for every one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import requests

from agent.own_log import find_request_id

CONNECT_S, READ_S = 5.0, 20.0
FIRST_RETRY_S, LAST_RETRY_S, REFUSED_RETRY_S = 0.5, 30.0, 300.0
# However long the server asks us to stay away, a machine that is not heard of is soon given up.
LONGEST_WISH_S = 300.0


class ServerAway(Exception):
    """No answer, or one that says "later". ``retry_after_s`` is the server's own wish, if it had one."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The server understood and said no; asking the same again soon is pointless."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """Talks to one server with one token. Not shared between threads: each has its own."""

    def __init__(self, server_url: str, token: str) -> None:
        self._server_url = server_url
        self._session = requests.Session()
        # The machine's proxies and .netrc are for its user, not for us; loopback must stay loopback.
        self._session.trust_env = not server_url.startswith(("http://127.", "http://localhost", "http://[::1]"))
        self._session.headers["Authorization"] = f"Bearer {token}"

    def post(self, path: str, body: Mapping[str, Any], *, timeout_s: float = READ_S) -> dict[str, Any]:
        """Posts JSON; returns the answer.

        Raises:
            ServerAway: try again later.
            Refused: the server said no.
        """
        return self._send("POST", path, json=body, timeout_s=timeout_s)

    def get(self, path: str, *, timeout_s: float) -> dict[str, Any]:
        """Gets JSON, with the same errors as ``post``."""
        return self._send("GET", path, json=None, timeout_s=timeout_s)

    def _send(self, method: str, path: str, *, json: Mapping[str, Any] | None, timeout_s: float) -> dict[str, Any]:
        request_id = find_request_id()
        try:
            response = self._session.request(
                method,
                self._server_url + path,
                json=json,
                headers={"X-Request-ID": request_id} if request_id else None,
                timeout=(CONNECT_S, timeout_s),
                allow_redirects=False,
            )
        except requests.RequestException as exc:
            raise ServerAway(type(exc).__name__) from exc
        if response.status_code >= 500 or response.status_code == 429:
            wish = response.headers.get("Retry-After", "")
            retry_after_s = float(wish) if wish.isascii() and wish.isdigit() else None
            raise ServerAway(f"HTTP {response.status_code}", retry_after_s)
        if response.status_code >= 300:
            raise Refused(response.status_code, _message(response))
        try:
            answer = response.json()
        except ValueError as exc:
            raise ServerAway("an answer that is not JSON") from exc
        return answer if isinstance(answer, dict) else {}


class Backoff:
    """Growing pauses with full jitter, so that 500 agents do not come back in one instant."""

    def __init__(self, first_s: float = FIRST_RETRY_S, last_s: float = LAST_RETRY_S) -> None:
        self._first_s, self._last_s, self._next_s = first_s, last_s, first_s

    def reset(self) -> None:
        """All is well again."""
        self._next_s = self._first_s

    def pause_s(self, exc: ServerAway | Refused) -> float:
        """How long to wait after this failure, in seconds."""
        if isinstance(exc, Refused):
            low, self._next_s = min(self._next_s, REFUSED_RETRY_S / 2), min(self._next_s * 2, REFUSED_RETRY_S)
            return random.uniform(low, self._next_s)  # noqa: S311 - jitter, not a secret
        limit, self._next_s = self._next_s, min(self._next_s * 2, self._last_s)
        wish = min(exc.retry_after_s or 0.0, LONGEST_WISH_S)
        return wish + random.uniform(0.1, limit)  # noqa: S311


def _message(response: requests.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"
