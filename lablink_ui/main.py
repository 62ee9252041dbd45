"""The entry point that composes everything: the house, the REST surface, the pages, one server process."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import webbrowser
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from backend.api import add_api
from backend.house import House, open_house
from backend.logs import set_up_logging
from backend.settings import Settings
from lablink_ui.pages import add_pages
from lablink_ui.theme import add_assets, favicon

logger = logging.getLogger(__name__)


def make_app(settings: Settings, *, is_demo: bool = False) -> FastAPI:
    """The application; its lifespan opens the house and keeps it as ``app.state.house``."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_house(settings, is_demo=is_demo) as house:
            # Pages are drawn by NiceGUI's own app, which is mounted in this one.
            app.state.house = nicegui_app.state.house = house
            # What lives now lives for ever; without this a full collection pauses every page.
            gc.collect()
            gc.freeze()
            yield

    secure = settings.public_url.startswith("https://")
    app = FastAPI(
        title="LabLink",
        version="1",
        lifespan=lifespan,
        docs_url="/api/docs",
        openapi_url="/api/openapi.json",
        redoc_url=None,
    )
    add_api(app, body_limit_bytes=settings.server.body_limit_bytes, secure=secure)
    add_assets(app)
    add_pages(app)
    # Last: what is registered after it would never be reached.
    ui.run_with(
        app,
        title="LabLink",
        language="en-US",
        dark=None,
        favicon=favicon(),
        tailwind=False,
        reconnect_timeout=settings.server.reconnect_timeout_s,
        show_welcome_message=False,
    )
    return app


def run_serve(settings: Settings) -> int:
    """`lablink serve`: serves until SIGTERM or Ctrl-C. Returns the exit status."""
    return _run(settings, is_demo=False)


def run_demo(settings: Settings) -> int:
    """`lablink demo`: the same with local VMs that rest while the server does. Returns the exit status."""
    return _run(settings, is_demo=True)


def _run(settings: Settings, *, is_demo: bool) -> int:
    set_up_logging(settings.log)
    try:
        return asyncio.run(_serve(settings, is_demo=is_demo))
    except KeyboardInterrupt:
        return 130


async def _serve(settings: Settings, *, is_demo: bool) -> int:
    app = make_app(settings, is_demo=is_demo)
    config = uvicorn.Config(
        app,
        host=settings.server.host,
        port=settings.server.port,
        log_config=None,
        # A page's client id is a secret and stands in its socket's URL.
        access_log=False,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config, app)
    await server.serve()
    return 0 if server.has_served else 1


class _Server(uvicorn.Server):
    """Uvicorn, told to stop any number of times, and telling people where to go."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self.has_served = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self.has_served = True
            _greet(self._app.state.house)

    def handle_exit(self, sig: int, frame: object) -> None:  # noqa: ARG002 - uvicorn's signature
        # A second signal must not cut the clean end short: a supervisor and a terminal may both send one.
        self.should_exit = True
        house: House | None = getattr(self._app.state, "house", None)
        if house:
            house.commands.close()
        if sig == signal.SIGINT:
            print("\nStopping …", file=sys.stderr)


def _greet(house: House) -> None:
    url = house.settings.public_url
    print(f"\n  LabLink is ready:  {url}\n\n  Admins:            {url}/admin   (user: admin)", flush=True)
    if house.new_password:
        print(f"  Password:          {house.new_password}   (shown this once)", flush=True)
    print(f"  Researchers:       {url}/join/default\n", flush=True)
    if house.is_demo and sys.stdin.isatty() and sys.stdout.isatty():
        webbrowser.open(f"{url}/admin")
