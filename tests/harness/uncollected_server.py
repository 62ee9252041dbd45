"""`lablink` without collections of garbage, and with more: it says what is left of pages that have gone, and gives up
those whose browser has not come.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Sequence

from fastapi import FastAPI
from nicegui import Client
from nicegui import app as nicegui_app
from nicegui.element import Element
from nicegui.elements.timer import Timer
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

import lablink_ui.main
from backend.house import House
from lablink_ui import cli

PATH, GIVING_UP = "/left", "/left/giving-up"
# A page, its parts, and its socket.
KINDS = (Client, Element, WebSocketsSansIOProtocol)
_make_app = lablink_ui.main.make_app


def make_app(house: House) -> FastAPI:
    """The server's own, with routes: how many pages there are, what is left of those that were; to give some up."""
    app = _make_app(house)

    # Before the pages, which answer whatever nobody else does.
    async def tell() -> dict[str, object]:
        left = (each for each in gc.get_objects() if isinstance(each, KINDS))
        gone = Counter(_name(each) for each in left if _has_gone(each))
        return {"pages": len(Client.instances), "tabs": len(nicegui_app.storage._tabs), "left": gone}

    # As NiceGUI does once they are a minute old.
    async def give_up() -> None:
        Client.prune_instances(client_age_threshold=0)

    for path, answer in ((PATH, tell), (GIVING_UP, give_up)):
        app.add_api_route(path, answer)
        app.router.routes.insert(0, app.router.routes.pop())
    return app


def _has_gone(each: object) -> bool:
    if isinstance(each, WebSocketsSansIOProtocol):
        return each.transport.is_closing()
    # Sleeps once more before it notices, and holds nothing but itself.
    if isinstance(each, Timer):
        return False
    return each.is_deleted or (isinstance(each, Element) and each._client() is None)


def _name(each: object) -> str:
    return f"page {each.page.path}" if isinstance(each, Client) else type(each).__name__


def main(argv: Sequence[str]) -> int:
    """The command's own, with that in its server."""
    gc.disable()
    # Collections that are asked for by name as well.
    gc.collect = lambda generation=2: 0  # type: ignore[assignment]
    lablink_ui.main.make_app = make_app
    return cli.main(argv)
