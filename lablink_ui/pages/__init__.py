"""The pages. Importing a module of pages registers them; routes of plain HTTP are added to the app."""

from __future__ import annotations

from fastapi import FastAPI

from lablink_ui.pages import (  # noqa: F401
    events,
    home,
    join,
    launch,
    machine,
    machines,
    operation,
    operations,
    overview,
    pool_screen,
    pools,
    seat,
    sign_in,
)


def add_pages(app: FastAPI) -> None:
    """Adds what pages need of plain HTTP; call it before ``ui.run_with``."""
    app.include_router(sign_in.router)
