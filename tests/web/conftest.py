"""One server for what is tested of the web's basics; its provider is away when it starts."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.harness.collector import Collector
from tests.harness.oidc_provider import CLIENT_ID, CLIENT_SECRET, ProviderProcess
from tests.harness.server import Server, free_port

# Another address of loopback plays the proxy; whoever comes from elsewhere on it is a stranger.
PROXY = "127.0.0.2"
METRICS_TOKEN = "a-token-that-reads-metrics-alone"


@pytest.fixture(scope="session")
async def provider() -> AsyncIterator[ProviderProcess]:
    """A provider that nobody has started yet."""
    process = ProviderProcess(free_port())
    yield process
    process.stop()


@pytest.fixture(scope="session")
async def collector() -> AsyncIterator[Collector]:
    """Where the server's spans go."""
    taking = Collector()
    yield taking
    taking.close()


@pytest.fixture(scope="session")
async def web_server(
    tmp_path_factory: pytest.TempPathFactory, provider: ProviderProcess, collector: Collector
) -> AsyncIterator[Server]:
    """Trusts one proxy and one provider, and waits two seconds for a request."""
    server = Server(
        tmp_path_factory.mktemp("web") / "home",
        f"server.trusted_proxies=[{PROXY},10.0.0.0/8]",
        "server.request_timeout_s=2",
        "server.max_connections=100",
        f"oidc.issuer={provider.issuer}",
        f"oidc.client_id={CLIENT_ID}",
        "oidc.admin_groups=[lab-admins]",
        "oidc.viewer_groups=[staff]",
        "server.metrics=true",
        "log.format=json",
        f"otel.endpoint={collector.url}",
        environment={
            "LABLINK_OIDC_CLIENT_SECRET": CLIENT_SECRET,
            "LABLINK_METRICS_TOKEN": METRICS_TOKEN,
            # Milliseconds between two batches.
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        },
    )
    await server.start()
    yield server
    await server.close()
