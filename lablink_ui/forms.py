"""Forms that go out over the page's own socket: once, when they are sent, so that no secret leaves as it is typed."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from nicegui import ui
from nicegui.element import Element

from backend.errors import LabLinkError
from backend.services.passwords import MAX_PASSWORD, MIN_PASSWORD
from lablink_ui.parts import Field, Text, tag, text
from lablink_ui.visits import tell

logger = logging.getLogger(__name__)
Values = dict[str, str]
MAX_VALUE = 2_000
_EMIT = "(e) => { e.preventDefault(); emit(Object.fromEntries(new FormData(e.target))); }"


class Form:
    """A form whose values come together. ``error`` is the place for what is wrong with them."""

    def __init__(self, element: Element) -> None:
        self.element = element
        self.error: Text

    def finish(self, verb: str, *, testid: str, tone: str = "") -> None:
        """Adds the place for errors and the button that sends; ``tone``: primary, danger, or neither."""
        self.error = text("div", "", "error", data_testid=f"{testid}-error", role="alert")
        tag("button", f"button start {tone}".strip(), verb, type="submit", data_testid=testid)

    def on_send(self, act: Callable[[Values], Awaitable[str | None]]) -> None:
        """Calls ``act`` with the values; its refusal is shown in the form, and a form that went well is emptied."""
        client = ui.context.client

        async def send(values: Values) -> None:
            self.error.say("")
            try:
                said = await act(values)
            except LabLinkError as exc:
                self.error.say(exc.message)
                return
            except Exception:
                logger.exception("a form of a page failed")
                self.error.say("Something went wrong here. It was logged.")
                return
            if not self.element.is_deleted:
                self.element.run_method("reset")
            # What was sent may have had this very form drawn anew.
            with client:
                if said:
                    tell(said)

        self.element.on("submit", lambda event: send(_values(event.args)), js_handler=_EMIT)


@contextmanager
def form(title: str, **attributes: str) -> Iterator[Form]:
    """A form in a card; its fields go inside, then ``finish``."""
    with tag("form", "card pad", autocomplete="off", **attributes) as element:
        tag("h2", "", title)
        yield Form(element)


def password_field(
    label: str, name: str, *, testid: str, is_new: bool = False, hint: str = "", autofocus: bool = False
) -> Field:
    """A field for a password that exists, or for a new one."""
    return Field(
        label,
        name=name,
        kind="password",
        testid=testid,
        hint=hint,
        autocomplete="new-password" if is_new else "current-password",
        minlength=MIN_PASSWORD if is_new else None,
        maxlength=MAX_PASSWORD,
        required=True,
        autofocus=autofocus,
    )


def _values(args: object) -> Values:
    given = args if isinstance(args, dict) else {}
    return {str(key): str(value)[:MAX_VALUE] for key, value in given.items()}
