"""Is it alive, can it serve: for load balancers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from backend.api.answers import AliveAnswer, ReadyAnswer, refusals
from backend.api.auth import TheHouse

router = APIRouter(tags=["probes"], responses=refusals())


@router.get("/healthz", response_model=AliveAnswer)
async def healthz() -> dict[str, str]:
    """The process answers."""
    return {"status": "ok"}


@router.get("/readyz", response_model=ReadyAnswer, responses={503: {"model": ReadyAnswer, "description": "not yet"}})
async def readyz(house: TheHouse) -> JSONResponse:
    """Pages can be served and are true: the listener is connected, the read model is live, and no end is near."""
    is_ready = house.listener.connected and house.live.snapshot.is_live and not house.is_draining
    content: dict[str, Any] = {
        "status": "ready" if is_ready else "stopping" if house.is_draining else "not ready",
        "listener": "connected" if house.listener.connected else "reconnecting",
        "pages": "live" if house.live.snapshot.is_live else "stale",
        "leads": house.presence.leads,
        "tasks": {state.name: state.last_error for state in house.supervisor.states.values() if state.last_error},
    }
    return JSONResponse(content, status_code=200 if is_ready else 503)
