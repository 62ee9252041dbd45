"""The REST API for programs, as an admin: enrolment tokens, what machines there are, taking them away, figures."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

from lablink_ui.swarm.http import Answer, Client, Failed
from lablink_ui.swarm.target import Target

AT_ONCE = 1_000
_LAG = re.compile(rb"^lablink_event_loop_lag_seconds(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


class Api:
    """One admin's door."""

    def __init__(self, target: Target, token: str) -> None:
        self._client = Client(target)
        self._headers = {"Authorization": f"Bearer {token}"}

    async def make_tokens(self, pool: str, count: int) -> list[str]:
        """Enrolment tokens.

        Raises:
            Failed: they were refused.
        """
        tokens: list[str] = []
        while len(tokens) < count:
            wanted = min(AT_ONCE, count - len(tokens))
            answer = await self._ask("POST", "/api/admin/enrolments", {"pool": pool, "count": wanted}, expects=201)
            tokens += answer.json()["tokens"]
        return tokens

    async def list_instances(self) -> list[dict[str, Any]]:
        """All machines that exist.

        Raises:
            Failed: the token may not see them.
        """
        found: list[dict[str, Any]] = (await self._ask("GET", "/api/admin/instances")).json()["instances"]
        return found

    async def destroy(self, hostnames: Collection[str]) -> None:
        """Has machines leave.

        Raises:
            Failed: it was refused.
        """
        for some in _pieces(sorted(hostnames), AT_ONCE):
            await self._ask("POST", "/api/admin/destroy", {"hostnames": some}, expects=202)

    async def find_lag(self) -> float | None:
        """By how much the server says that its event loop was late, in seconds; None where it does not tell."""
        try:
            answer = await self._client.ask("GET", "/metrics", headers=self._headers)
        except Failed:
            return None
        found = _LAG.search(answer.content()) if answer.status == 200 else None
        return float(found[1]) if found else None

    def close(self) -> None:
        """Ends its connections."""
        self._client.close()

    async def _ask(self, method: str, path: str, body: object = None, *, expects: int = 200) -> Answer:
        answer = await self._client.ask(method, path, body, headers=self._headers)
        if answer.status != expects:
            raise Failed(f"{path} {answer.status}", f"{method} {path}: {answer.status} {answer.problem()}")
        return answer


def _pieces(items: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some
