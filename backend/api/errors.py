"""Errors on the way out: everything under /api answers ``{"error": {"code", "message"}}`` with the right status."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from backend.errors import LabLinkError

logger = logging.getLogger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Registers the handlers on the outer app."""
    app.add_exception_handler(LabLinkError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(Exception, _on_defect)


def error_response(status: int, code: str, message: str, *, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape of an error."""
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status, headers=headers)


async def _on_refusal(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, LabLinkError)
    headers = {}
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(exc.retry_after_s)
    if exc.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return error_response(exc.status, exc.error_code, exc.message, headers=headers)


async def _on_invalid(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    problems = [_sentence(problem) for problem in exc.errors()[:5]]
    return error_response(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", "; ".join(problems))


async def _on_http(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    phrase = HTTPStatus(exc.status_code).phrase
    code = phrase.lower().replace(" ", "_")
    headers = dict(exc.headers) if exc.headers else None
    return error_response(exc.status_code, code, f"{phrase}: {request.method} {request.url.path}", headers=headers)


async def _on_gone(request: Request, exc: Exception) -> JSONResponse:
    # Nobody reads it: the connection ended before the body did.
    return error_response(HTTPStatus.REQUEST_TIMEOUT, "gone", "The request did not arrive whole.")


async def _on_defect(request: Request, exc: Exception) -> JSONResponse:
    # Starlette logs the traceback itself; the caller learns nothing of our insides.
    return error_response(500, "internal", "Something went wrong here. It was logged.")


def _sentence(problem: dict[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path", "header"))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "unknown field"
    elif problem["type"] == "json_invalid" or (
        not where and problem["type"] in {"model_attributes_type", "model_type"}
    ):
        return "The body must be a JSON object (with Content-Type: application/json)."
    return f"{where[:100]}: {message}" if where else message
