"""Spot machines: the cloud says about two minutes before it takes one away, to whoever asks from within the machine.

docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html (its advice: ask every 5 s); the
token comes first, as IMDSv2 wants it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import requests

POLL_S, ANSWER_S = 5.0, 2.0
TOKEN_LIFE_S = 21_600
NOT_FOUND, UNAUTHORIZED = 404, 401


class SpotWatch:
    """Asks the metadata service of this machine. ``ends_at``: when the machine is taken away, once that is known."""

    def __init__(self, metadata_url: str, on_news: Callable[[], None]) -> None:
        self.ends_at: datetime | None = None
        self._url, self._on_news = metadata_url.rstrip("/"), on_news
        self._session = requests.Session()
        # A proxy of the machine would ask for itself.
        self._session.trust_env = False
        self._token: str | None = None

    def run(self, stopping: threading.Event) -> None:
        """Asks until told to stop; ``on_news`` is called whenever the answer is another one."""
        while not stopping.is_set():
            try:
                ends_at = self._ask()
            except (requests.RequestException, ValueError, KeyError, TypeError):
                # Nobody there, or no answer that we know: what was known stays.
                ends_at = self.ends_at
            if ends_at != self.ends_at:
                self.ends_at = ends_at
                self._on_news()
            stopping.wait(POLL_S)

    @property
    def reason(self) -> str | None:
        """Why the machine is fit for nobody any more, if it is taken away."""
        if self.ends_at is None:
            return None
        return f"the cloud takes this spot machine away at {self.ends_at:%H:%M:%S} UTC"

    def _ask(self) -> datetime | None:
        if self._token is None:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_LIFE_S)}
            answer = self._session.put(f"{self._url}/latest/api/token", headers=headers, timeout=ANSWER_S)
            answer.raise_for_status()
            self._token = answer.text
        answer = self._session.get(
            f"{self._url}/latest/meta-data/spot/instance-action",
            headers={"X-aws-ec2-metadata-token": self._token},
            timeout=ANSWER_S,
        )
        if answer.status_code == UNAUTHORIZED:
            self._token = None
        if answer.status_code == NOT_FOUND:
            return None
        answer.raise_for_status()
        said = datetime.fromisoformat(answer.json()["time"])
        return said.astimezone(UTC) if said.tzinfo else said.replace(tzinfo=UTC)
