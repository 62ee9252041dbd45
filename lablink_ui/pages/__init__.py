"""The pages. Importing a module of pages registers them; routes of plain HTTP are added to the app."""

from __future__ import annotations

from fastapi import FastAPI

from lablink_ui.pages import (  # noqa: F401
    account,
    alarms,
    events,
    events_export,
    fleet,
    home,
    invite,
    join,
    launch,
    log_files,
    machine,
    machines,
    operation,
    operations,
    overview,
    people,
    person,
    pool_screen,
    pool_state,
    pools,
    rehearsal,
    schedules,
    seat,
    sign_in,
    sign_in_code,
)


def add_pages(app: FastAPI) -> None:
    """Adds what pages need of plain HTTP; call it before ``ui.run_with``."""
    for module in (sign_in, sign_in_code, invite, events_export, log_files, pool_state):
        app.include_router(module.router)
