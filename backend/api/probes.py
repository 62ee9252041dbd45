"""Is it alive, can it serve, how is it doing: for load balancers and monitoring."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from backend.api.answers import AliveAnswer, ReadyAnswer, refusals
from backend.api.auth import Admin, TheHouse
from backend.errors import NotFound
from backend.states import VmStatus

router = APIRouter(tags=["probes"], responses=refusals())


@router.get("/healthz", response_model=AliveAnswer)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer, "description": "not yet"}})
async def readyz(house: TheHouse) -> JSONResponse:
    """Pages can be served and are true: the listener is connected and the read model is live."""
    is_ready = house.listener.connected and house.live.snapshot.is_live
    content: dict[str, Any] = {
        "status": "ready" if is_ready else "not ready",
        "listener": "connected" if house.listener.connected else "reconnecting",
        "pages": "live" if house.live.snapshot.is_live else "stale",
        "tasks": {state.name: state.last_error for state in house.supervisor.states.values() if state.last_error},
    }
    return JSONResponse(content, status_code=200 if is_ready else 503)


@router.get(
    "/metrics",
    response_model=None,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(401, 404, 429)},
)
async def metrics(_: Admin, house: TheHouse) -> PlainTextResponse:
    """Figures for Prometheus, if the configuration has them served."""
    if not house.settings.server.metrics:
        raise NotFound("Metrics are off; set server.metrics=true.")
    registry = CollectorRegistry()
    vms = Gauge("lablink_vms", "VMs by pool and status", ["pool", "status"], registry=registry)
    snapshot = house.live.snapshot
    for pool in snapshot.pools.values():
        for status in VmStatus:
            count = sum(vm.pool_id == pool.id and vm.status is status for vm in snapshot.vms.values())
            vms.labels(pool.name, status).set(count)
    Gauge("lablink_line", "People in line", registry=registry).set(len(snapshot.positions))
    Gauge("lablink_pages", "Open pages", registry=registry).set(house.live.pages)
    Gauge("lablink_live", "Whether pages are true", registry=registry).set(snapshot.is_live)
    return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")
