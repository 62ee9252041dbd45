"""Pages for what cannot be shown: plain HTML, so that they work while everything else does not, and cost nothing."""

from __future__ import annotations

import html
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse

from backend.errors import LabLinkError
from lablink_ui.theme import asset, icon

RETRY_S = 3
_TITLES = {
    401: "This does not open anything",
    403: "You may not do this",
    404: "There is no such page",
    409: "This cannot be done now",
    429: "Too many attempts",
    503: "One moment, please",
}
_NO_PAGE = "Check the address, or start again from the front page."
_DEFECT = "It was logged. Try again, or start again from the front page."
_PAGE = """<!doctype html>
<html lang="en-US"{retry}><head><meta charset="utf-8"><title>{title} · LabLink</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="{favicon}"><link rel="stylesheet" href="{css}"><script src="{script}"></script></head>
<body><header class="top"><a class="brand" href="/">{logo}<span>LabLink</span></a></header>
<main class="public"><div class="panel"><div class="hero"><h1>{title}</h1><p class="sub">{text}</p></div>
<a class="button primary big" href="{href}">{action}</a></div></main></body></html>
"""

logger = logging.getLogger(__name__)


def add_refusals(app: FastAPI, pages: FastAPI) -> None:
    """Puts these pages in the place of JSON (where a browser asks for a page) and of the library's own."""
    as_json = cast("Callable[[Request, Exception], Awaitable[Response]]", app.exception_handlers[LabLinkError])

    async def on_refusal(request: Request, exc: Exception) -> Response:
        if _wants_page(request) and isinstance(exc, LabLinkError):
            return _refusal(request, exc.status, exc.message, exc.retry_after_s)
        return await as_json(request, exc)

    app.add_exception_handler(LabLinkError, on_refusal)
    pages.add_exception_handler(LabLinkError, on_refusal)
    pages.add_exception_handler(404, _on_unknown)
    pages.add_exception_handler(Exception, _on_defect)


async def _on_unknown(request: Request, exc: Exception) -> Response:
    if not _wants_page(request):
        detail = exc.detail if isinstance(exc, HTTPException) else "Not found"
        return PlainTextResponse(detail, status_code=404)
    return _refusal(request, 404, _NO_PAGE)


async def _on_defect(request: Request, exc: Exception) -> Response:
    logger.error("the page %s failed", request.url.path, exc_info=exc)
    return _refusal(request, 500, _DEFECT)


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api")


def _refusal(request: Request, status: int, text: str, wait_s: int | None = None) -> Response:
    is_passing = status == 503
    again = html.escape(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
    page = _PAGE.format(
        title=_TITLES.get(status, "Something went wrong here"),
        text=html.escape(text) + (" This page tries again by itself." if is_passing else ""),
        retry=" data-retry" if is_passing else "",
        href=again if is_passing else "/",
        action="Try again now" if is_passing else "To the front page",
        css=asset("lablink.css"),
        script=asset("lablink.js"),
        favicon=asset("favicon.svg"),
        logo=icon("logo"),
    )
    wait_s = RETRY_S if is_passing else wait_s
    headers = {"Retry-After": str(wait_s)} if wait_s else None
    return HTMLResponse(page, status_code=status, headers=headers)
