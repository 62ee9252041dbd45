"""The look: our style sheet, fonts and script, served under a name that changes with their content."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from backend.resources import assets_dir

YEAR_S = 31_536_000


class _Immutable(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = f"public, max-age={YEAR_S}, immutable"
        return response


def add_assets(app: FastAPI) -> None:
    """Serves the assets."""
    app.mount(f"/assets/{_version()}", _Immutable(directory=assets_dir()), name="assets")


def use_theme() -> None:
    """Puts our style sheet and script into the head of the page being drawn."""
    font = asset("fonts/inter-latin-wght-normal.woff2")
    ui.add_head_html(
        f'<meta name="lablink-now" content="{datetime.now(UTC).isoformat()}">'
        f'<script src="{asset("lablink.js")}"></script><link rel="stylesheet" href="{asset("lablink.css")}">'
        f'<link rel="preload" as="font" type="font/woff2" crossorigin href="{font}">'
    )


def asset(name: str) -> str:
    """The address of an asset."""
    return f"/assets/{_version()}/{name}"


@cache
def icon(name: str) -> str:
    """An icon as SVG; it says nothing to a screen reader, so put words beside it."""
    return (assets_dir() / "icons" / f"{name}.svg").read_text(encoding="utf-8")


def favicon() -> Path:
    """The icon of the browser's tab."""
    return assets_dir() / "favicon.svg"


@cache
def _version() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(assets_dir()).rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
