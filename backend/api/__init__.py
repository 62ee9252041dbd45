"""The REST surface."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.requests import Request

from backend.api import (
    admin,
    agents,
    alarms,
    boots,
    history,
    log_files,
    metrics,
    oidc,
    probes,
    rehearsals,
    rosters,
    schedules,
    seat,
    seat_crd,
    seats,
    terminals,
    tokens,
    upkeep,
)
from backend.api.body_limit import BodyLimit
from backend.api.cookies import BrowserCookie
from backend.api.errors import add_error_handlers
from backend.api.headers import SecurityHeaders
from backend.api.request_log import RequestLog
from backend.api.turns import Turns
from backend.errors import NotFound

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def add_api(app: FastAPI, *, body_limit_bytes: int, secure: bool, has_metrics: bool = False) -> None:
    """Adds every route, the error shape, the limits and the browser's cookie to the outer app."""
    people = (seats, seat, seat_crd, terminals, oidc)
    for_admins = (admin, upkeep, tokens, history, log_files, rosters, schedules, rehearsals, alarms)
    parts = (probes, metrics, agents, boots, *people, *for_admins)
    # First what comes most often: routes are looked through in this order.
    app.include_router(agents.reports)
    for module in parts:
        app.include_router(module.router)
    rest = APIRouter()

    @rest.api_route("/api", methods=_METHODS, include_in_schema=False)
    @rest.api_route("/api/{path:path}", methods=_METHODS, include_in_schema=False)
    async def unknown(request: Request) -> None:
        raise NotFound(f"There is no {request.method} {request.url.path[:100]}.")

    app.include_router(rest)
    add_error_handlers(app)
    app.add_middleware(BrowserCookie, secure=secure)
    app.add_middleware(BodyLimit, max_bytes=body_limit_bytes)
    app.add_middleware(SecurityHeaders, secure=secure)
    # Within those that measure: to wait for one's turn takes time too.
    app.add_middleware(Turns)
    app.add_middleware(RequestLog)
    if has_metrics:
        app.state.requests = metrics.Requests()
        app.add_middleware(metrics.CountRequests, requests=app.state.requests)
