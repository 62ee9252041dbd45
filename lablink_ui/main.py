"""The entry point that composes everything: the house, the REST surface, the pages, one server process."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import uvicorn
import uvloop
from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from backend.api import add_api
from backend.api.connections import limited_protocol
from backend.api.own_origin import OwnOrigin
from backend.api.proxies import TrustedProxies
from backend.errors import Conflict
from backend.house import House, open_house
from backend.keys import UnusableKey
from backend.logs import set_up_logging
from backend.settings import Settings
from backend.spans import sending_spans
from lablink_ui.compression import Compression
from lablink_ui.cycles import cut_cycles
from lablink_ui.garbage import collect_when_quiet, give_back_when_quiet, hold_back_collections
from lablink_ui.handlers import remember_handlers
from lablink_ui.nonces import ScriptNonces
from lablink_ui.page_turns import PageTurns
from lablink_ui.pages import add_pages
from lablink_ui.refusals import add_refusals
from lablink_ui.theme import add_assets, favicon

SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


def make_app(house: House) -> FastAPI:
    """The application around an open house."""
    settings = house.settings
    app = FastAPI(
        title="LabLink",
        version="1",
        openapi_url="/api/openapi.json",
        # The description of the API is served; a page that shows it would load its script from somewhere else.
        docs_url=None,
        redoc_url=None,
        # Ours leave the paths out (backend.otel).
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    # Pages are drawn by NiceGUI's own app, which is mounted in this one.
    app.state.house = nicegui_app.state.house = house
    # Innermost: what it keeps bears nobody's cookie.
    app.add_middleware(Compression)
    add_api(
        app,
        body_limit_bytes=settings.server.body_limit_bytes,
        secure=settings.public_url.startswith("https://"),
        has_metrics=settings.server.metrics,
    )
    app.add_middleware(OwnOrigin, path="/_nicegui_ws")
    # Outermost: everything within sees who really asks, and under which name.
    app.add_middleware(TrustedProxies, networks=settings.server.trusted_proxies)
    remember_handlers()
    cut_cycles()
    add_assets(app)
    add_pages(app)
    add_refusals(app, nicegui_app)
    # Its bar at the top shows no progress of ours, and screen readers find no name on it.
    nicegui_app.config.quasar_config["loadingBar"] = {"skipHijack": True}
    # Within the compression.
    nicegui_app.add_middleware(ScriptNonces)
    nicegui_app.add_middleware(PageTurns, answers=house.db.answers)
    # We keep nothing there, and NiceGUI keeps that for a month for every page there ever was.
    nicegui_app.storage.max_tab_storage_age = settings.server.reconnect_timeout_s
    # Last: what is registered after it would never be reached.
    ui.run_with(
        app,
        title="LabLink",
        language="en-US",
        dark=None,
        favicon=favicon(),
        tailwind=False,
        reconnect_timeout=settings.server.reconnect_timeout_s,
        gzip_middleware_factory=None,
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
    set_up_logging(settings.log, settings.secrets.values())
    spans = sending_spans(settings.otel.endpoint, sample_pct=settings.otel.sample_pct)
    with spans, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, is_demo=is_demo))


async def _serve(settings: Settings, *, is_demo: bool) -> int:
    # The port comes first: one that is in use must not cost a start and a stop of everything.
    with _Stop() as stop, _listen(settings) as listening:
        try:
            async with open_house(settings, is_demo=is_demo) as house:
                server = _Server(house)
                stop.take_over(server)
                await server.serve(sockets=[listening])
                return 0 if server.has_served else 1
        except asyncio.CancelledError:
            return 0 if stop.was_asked else 1


class _Stop:
    """SIGTERM and Ctrl-C, from the first moment to the last: any number of them is one clean end.

    SIGHUP is an end too where a terminal is attached, for that has closed; elsewhere it has the keys read anew.
    """

    def __init__(self) -> None:
        self.was_asked = False
        self._server: _Server | None = None
        self._starting = asyncio.current_task()
        self._has_terminal = bool(sys.stdin and sys.stdin.isatty())

    def __enter__(self) -> Self:
        # Not by the loop's own handlers: it would give the signals back while the process has not quite ended.
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(self._ask))
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self._hang_up))
        return self

    def __exit__(self, *_: object) -> None:
        """Everything has ended; what comes now is too late to mean anything."""
        for number in (*SIGNALS, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def take_over(self, server: _Server) -> None:
        """From here on the server is told; before, the start is broken off."""
        self._starting, self._server = None, server
        server.should_exit = self.was_asked

    def _hang_up(self) -> None:
        if self._has_terminal:
            self._ask()
        elif self._server:
            self._server.reload_keys()

    def _ask(self) -> None:
        if not self.was_asked:
            logger.info("stopping")
        self.was_asked = True
        if self._server:
            self._server.stop()
        elif self._starting:
            self._starting.cancel()
            self._starting = None


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP: only then does asyncio switch Nagle's delay off, which costs 40 ms an answer.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as exc:
        listening.close()
        raise Conflict(f"Cannot listen on server.host={host} server.port={port}: {exc.strerror}.") from exc
    return listening


class _Server(uvicorn.Server):
    """Uvicorn without signal handlers of its own, telling people where to go."""

    def __init__(self, house: House) -> None:
        limits = house.settings.server
        config = uvicorn.Config(
            make_app(house),
            log_config=None,
            # A page's client id is a secret and stands in its socket's URL.
            access_log=False,
            http=limited_protocol(request_timeout_s=limits.request_timeout_s, max_connections=limits.max_connections),
            # Proxies are ours to judge; uvicorn would believe any on this machine.
            proxy_headers=False,
            ws="websockets-sansio",
            ws_max_size=limits.body_limit_bytes,
            ws_per_message_deflate=False,
            # Longer than agents pause between two heartbeats: each would pay for a new connection, or lose the race
            # with the end of the old one.
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
        super().__init__(config)
        self._house = house
        self.has_served = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts serving, then greets."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self.has_served = True
            hold_back_collections()
            self._house.supervisor.start("garbage", collect_when_quiet)
            self._house.supervisor.start("memory", give_back_when_quiet)
            _greet(self._house)

    def stop(self) -> None:
        """Stops serving, once balancers had time to notice; told again, at once."""
        drain_s = self._house.settings.server.drain_s
        if drain_s and self.has_served and not self._house.is_draining:
            self._house.is_draining = True
            asyncio.get_running_loop().call_later(drain_s, self._stop)
        else:
            self._stop()

    def _stop(self) -> None:
        # Agents that wait in a long poll are let go first.
        self.should_exit = True
        self._house.commands.close()

    def reload_keys(self) -> None:
        """Takes up rotated keys; with unusable ones it goes on as before."""
        try:
            self._house.reload_keys()
        except UnusableKey as exc:
            logger.error("the keys stay as they were: %s", exc.message)
        else:
            logger.info("the keys were read anew")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone: they are ours before and after serving too."""
        yield


def _greet(house: House) -> None:
    url = house.settings.public_url
    print(f"\n  LabLink is ready:  {url}\n\n  Admins:            {url}/admin   (user: admin)", flush=True)
    if house.new_password:
        print(f"  Password:          {house.new_password}   (shown this once)", flush=True)
    print(f"  Researchers:       {url}/join/default\n", flush=True)
    if house.is_demo and sys.stdin.isatty() and sys.stdout.isatty():
        webbrowser.open(f"{url}/admin")
