"""Figures for Prometheus. Their labels are pools, states, route templates, methods and classes of status codes alone:
never a hostname, an e-mail or an id, so that there are as many series tomorrow as today.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections import Counter as Tally
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.responses import PlainTextResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.answers import refusals
from backend.api.auth import Address, Credentials, TheHouse, by_session, find_bearer, get_admin
from backend.errors import NotFound, Unavailable
from backend.house import House
from backend.live.changes import Snapshot
from backend.services.alarm_deliveries import count_waiting
from backend.services.budgets import list_budgets
from backend.services.costs import get_costs
from backend.states import OPEN_CLAIM, OPEN_OPERATION, Health, Severity, VmStatus

BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_Values = dict[tuple[str, ...], float]
router = APIRouter(tags=["probes"], responses=refusals())


class Requests:
    """What is counted of HTTP requests, since the start."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._count = Counter("lablink_http_requests", "Requests", ["route", "method", "code"], registry=self.registry)
        self._seconds = Histogram(
            "lablink_http_request_seconds",
            "Seconds until a request was answered",
            ["route", "method"],
            registry=self.registry,
            buckets=BUCKETS_S,
        )
        ProcessCollector(registry=self.registry)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """One request was answered."""
        route = getattr(scope.get("route"), "path", None) or "other"
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._count.labels(route, method, f"{status // 100}xx").inc()
        self._seconds.labels(route, method).observe(seconds)


class CountRequests:
    """ASGI middleware: counts what passes."""

    def __init__(self, app: ASGIApp, *, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets everything through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            self._requests.note(scope, status, time.perf_counter() - began)


async def may_read(
    request: Request, house: TheHouse, given: Credentials, address: Address, _: Annotated[str | None, by_session]
) -> None:
    """Lets the token for metrics through, and whoever may look at the console.

    Never an address alone: behind a proxy on this machine everybody comes from loopback.

    Raises:
        Unauthenticated: neither.
    """
    token, ours = find_bearer(given), house.settings.secrets.metrics_token
    if token is not None and ours is not None and hmac.compare_digest(token.encode(), ours.encode()):
        return
    await get_admin(request, house, given, address, None)


@router.get(
    "/metrics",
    response_model=None,
    dependencies=[Depends(may_read)],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401, 404, 429)},
)
async def metrics(request: Request, house: TheHouse) -> PlainTextResponse:
    """Figures for Prometheus, if the configuration has them served."""
    if not house.settings.server.metrics:
        raise NotFound("Metrics are off; set server.metrics=true.")
    figures = _Figures()
    _show_pools(figures, house.live.snapshot, house.db.now().timestamp())
    _show_server(figures, house)
    try:
        await _show_money(figures, house)
        figures.show(
            "lablink_deliveries_waiting", "Messages about alarms that wait to be sent", await count_waiting(house.db)
        )
    except Unavailable:
        # What is known without Postgres is worth more then than ever.
        pass
    text = generate_latest(figures.registry) + generate_latest(request.app.state.requests.registry)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


class _Figures:
    """Gauges of this moment."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def show(self, name: str, text: str, value: float) -> None:
        """One figure."""
        Gauge(name, text, registry=self.registry).set(value)

    def show_each(self, name: str, text: str, labels: tuple[str, ...], values: _Values) -> None:
        """One figure for each set of labels."""
        gauge = Gauge(name, text, labels, registry=self.registry)
        for key, value in values.items():
            gauge.labels(*key).set(value)


def _show_pools(figures: _Figures, snapshot: Snapshot, now_s: float) -> None:
    vms, claims, pools = snapshot.vms.values(), snapshot.claims.values(), [*snapshot.pools.values()]
    of_vms = Tally((vm.pool, str(vm.status)) for vm in vms)
    of_claims = Tally((claim.pool, str(claim.status)) for claim in claims)
    of_runs = Tally((each.pool, str(each.status)) for each in snapshot.operations.values())
    line: Tally[str] = Tally()
    waited: dict[str, float] = {}
    for claim_id in snapshot.positions:
        claim = snapshot.claims[claim_id]
        line[claim.pool] += 1
        waited[claim.pool] = max(waited.get(claim.pool, 0), now_s - claim.status_changed_at.timestamp())
    by_status = ("pool", "status")
    names = [pool.name for pool in pools]
    figures.show_each(
        "lablink_vms", "VMs", by_status, {(n, str(s)): of_vms[n, str(s)] for n in names for s in VmStatus}
    )
    figures.show_each(
        "lablink_claims",
        "Open claims",
        by_status,
        {(n, str(s)): of_claims[n, str(s)] for n in names for s in OPEN_CLAIM},
    )
    figures.show_each(
        "lablink_operations_open",
        "Operations that are not done",
        by_status,
        {(n, str(s)): of_runs[n, str(s)] for n in names for s in OPEN_OPERATION},
    )
    silent = Tally(vm.pool for vm in vms if vm.unreachable_since)
    unwell = Tally(vm.pool for vm in vms if vm.health is Health.UNHEALTHY)
    for name, text, values in (
        ("lablink_line", "People in line", line),
        ("lablink_line_wait_seconds", "For how long the first in line has waited", waited),
        ("lablink_vms_silent", "VMs whose agent is silent", silent),
        ("lablink_vms_unhealthy", "VMs whose agent says that they are unhealthy", unwell),
    ):
        figures.show_each(name, text, ("pool",), {(n,): values.get(n, 0) for n in names})
    figures.show_each(
        "lablink_vms_max", "VMs that a pool may have", ("pool",), {(pool.name,): pool.max for pool in pools}
    )


def _show_server(figures: _Figures, house: House) -> None:
    snapshot = house.live.snapshot
    alarms = snapshot.alarms.values()
    seen = len(snapshot.alarms) - snapshot.ringing
    figures.show_each(
        "lablink_alarms", "Open alarms", ("status",), {("open",): snapshot.ringing, ("acknowledged",): seen}
    )
    critical = sum(alarm.severity is Severity.CRITICAL for alarm in alarms)
    figures.show("lablink_alarms_critical", "Open alarms that somebody should look at now", critical)
    figures.show("lablink_pages", "Open pages", house.live.pages)
    figures.show("lablink_live", "Whether pages are true", snapshot.is_live)
    figures.show("lablink_leads", "Whether this process sweeps for all", house.presence.leads)
    figures.show("lablink_listener_connected", "Whether Postgres' notices are heard", house.listener.connected)
    figures.show("lablink_event_loop_lag_seconds", "By how much the server was late, several times", house.watch.lag_s)
    figures.show("lablink_disk_free_ratio", "Free space of the data directory's disk", house.watch.disk_free_pct / 100)
    figures.show("lablink_asyncio_tasks", "Tasks of the event loop", len(asyncio.all_tasks()))
    failing = sum(state.last_error is not None for state in house.supervisor.states.values())
    figures.show("lablink_tasks_failing", "Background tasks that failed last time", failing)


async def _show_money(figures: _Figures, house: House) -> None:
    costs, pools = await get_costs(house.db), house.live.snapshot.pools
    per_hour: _Values = {
        (pool.name,): costs.by_pool[key].per_hour if key in costs.by_pool else 0 for key, pool in pools.items()
    }
    figures.show_each("lablink_cost_dollars_per_hour", "What a pool costs now", ("pool",), per_hour)
    spent: _Values = {(budget.pool,): budget.spent_pct / 100 for budget in await list_budgets(house.db)}
    figures.show_each("lablink_budget_spent_ratio", "How much of a pool's budget is spent", ("pool",), spent)
