"""Clients of AWS beside Terraform: made once a service, with short patience; and its refusals as our errors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from backend.provisioning.aws.failures import REFUSED_CREDENTIALS

CONNECT_S, READ_S, ATTEMPTS = 3, 8, 2
# What AWS answers to whoever may not ask (docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html).
DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})


class AwsClients:
    """The clients of one account and region. They wait for AWS: they belong in threads, which may share them."""

    def __init__(self, region: str, *, endpoint_url: str | None) -> None:
        self.region, self._endpoint_url = region, endpoint_url
        self._making = threading.Lock()
        self._made: dict[tuple[str, str], Any] = {}

    def get(self, service: str, region: str | None = None) -> Any:
        """The client of a service. The first one of each takes a fifth of a second."""
        key = (service, region or self.region)
        # What the services are is read by one thread at a time.
        with self._making:
            if key not in self._made:
                style = {"addressing_style": "path" if self._endpoint_url else "auto"}
                retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
                config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries=retries, s3=style)
                made = make_client(service, key[1], endpoint_url=self._endpoint_url, config=config)
                call_when_refused(made, self.forget)
                self._made[key] = made
            return self._made[key]

    def forget(self) -> None:
        """Makes all anew when they are needed: credentials in files and in the environment are read once a client."""
        with self._making:
            self._made.clear()


def make_client(service: str, region: str | None, **options: Any) -> Any:
    """A client that looks for credentials of its own; what AWS's services are is read once a process.

    ``options`` are further ones of botocore's ``create_client``.
    """
    session = Session()
    session.register_component("data_loader", _loader())
    return session.create_client(service, region_name=region, **options)


@cache
def _loader() -> Loader:
    return create_loader(Session().get_config_variable("data_path"))


def call_when_refused(client: Any, forget: Callable[[], object]) -> None:
    """Has ``forget`` called whenever AWS does not take the credentials of a client: renewed ones need another."""

    def look(parsed: Mapping[str, Any], **_: Any) -> None:
        if parsed.get("Error", {}).get("Code") in REFUSED_CREDENTIALS:
            forget()

    client.meta.events.register("after-call", look)


def error_code(exc: ClientError) -> str:
    """AWS's own word for what went wrong."""
    return str(exc.response["Error"].get("Code", ""))


def said(exc: Exception) -> str:
    """What AWS said, as a sentence of its own."""
    message = exc.response["Error"].get("Message") if isinstance(exc, ClientError) else None
    return " ".join(str(message or exc).split())[:300].rstrip(".")
