"""Cycles: a page that has gone is given back at once, because nothing of it holds on to itself.

What refers to itself in a circle waits for a full collection of garbage, which looks through all that lives: among a
thousand open pages it takes seconds, in which nothing else happens. NiceGUI's elements hold on to one another by weak
references; what is cut here are the circles that are left.
"""

from __future__ import annotations

import asyncio
from typing import Any

from engineio.async_drivers.asgi import WebSocket  # type: ignore[import-untyped]
from nicegui import Client, app, core
from nicegui.element import Element

_end_element = Element._handle_delete  # noqa: SLF001 - NiceGUI's own place for what happens at an element's end


def cut_cycles() -> None:
    """From here on pages, and parts of pages, fall apart as soon as they are gone."""
    Element._handle_delete = _cut_element  # type: ignore[assignment, method-assign]  # noqa: SLF001
    app.on_delete(_cut_client)
    core.sio.eio._async["websocket"] = _Socket  # noqa: SLF001 - engineio has no other way to choose it


def _cut_element(element: Element) -> None:
    _end_element(element)
    # Each calls a method of its own when it changes.
    for collection in (element.props, element.classes, element.style):
        collection._change_handlers.clear()  # noqa: SLF001


class _Socket(WebSocket):  # type: ignore[misc]
    """A page's socket. Its end is an exception, whose traceback holds the task that holds the exception."""

    _end: Exception | None = None

    async def __call__(self, environ: dict[str, Any]) -> str:
        """Serves it to its end."""
        try:
            return str(await super().__call__(environ))
        finally:
            if self._end is not None:
                self._end.__traceback__ = None
            # A class made for this request, as all classes a circle; what it knows of the request goes now.
            del type(environ["wsgi.input"]).read

    async def wait(self) -> str | bytes:
        """The next message.

        Raises:
            OSError: there is none, and never will be.
        """
        try:
            message: str | bytes = await super().wait()
        except Exception as exc:
            self._end = exc
            raise
        return message


def _cut_client(client: Client) -> None:
    # Not at once: the other handlers of its end are still to come.
    asyncio.get_running_loop().call_soon(_forget_handlers, client)


def _forget_handlers(client: Client) -> None:
    client.connect_handlers.clear()
    client.disconnect_handlers.clear()
    client.delete_handlers.clear()
