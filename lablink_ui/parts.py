"""Small parts of pages: native HTML elements with our classes, so that test ids sit on what people act on."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.events import GenericEventArguments

from backend.api.csrf import FIELD, form_token
from lablink_ui.components import Moment
from lablink_ui.theme import icon

Action = Callable[[], Any]


def tag(element_name: str, classes: str = "", text: str = "", /, **attributes: Any) -> Element:
    """A native element. Attribute names are written with ``_`` for ``-``; None and False leave one out."""
    element = Text(element_name, text) if text else ui.element(element_name)
    if classes:
        element.classes(classes)
    for key, value in attributes.items():
        if value is not None and value is not False:
            element.props[key.rstrip("_").replace("_", "-")] = value
    return element


class Text(Element):
    """A native element with text in it that can change."""

    def __init__(self, name: str, text: str = "") -> None:
        super().__init__(name)
        self._text = text

    def say(self, text: str) -> None:
        """Changes the text, if it differs."""
        if text != self._text:
            self._text = text
            self.update()


def text(element_name: str, words: str = "", classes: str = "", /, **attributes: Any) -> Text:
    """A native element whose text will change."""
    element = Text(element_name, words)
    if classes:
        element.classes(classes)
    for key, value in attributes.items():
        if value is not None:
            element.props[key.rstrip("_").replace("_", "-")] = value
    return element


def form_token_field() -> None:
    """The hidden field that a form posted over plain HTTP must carry."""
    tag("input", type="hidden", name=FIELD, value=form_token(ui.context.client.request))


def icon_of(name: str) -> None:
    """An icon."""
    ui.html(icon(name), sanitize=False, tag="span").classes("icon-slot")


def button(
    words: str,
    on_click: Action | None = None,
    *,
    classes: str = "",
    testid: str | None = None,
    **attributes: Any,
) -> Element:
    """A native button."""
    element = tag("button", f"button {classes}".strip(), words, type="button", data_testid=testid, **attributes)
    if on_click is not None:
        element.on("click", lambda _: on_click())
    return element


def link_button(words: str, href: str, *, classes: str = "", icon_name: str | None = None) -> Element:
    """A link that looks like a button."""
    with tag("a", f"button {classes}".strip(), href=href) as element:
        if icon_name:
            icon_of(icon_name)
        tag("span", "", words)
    return element


class Field:
    """A labelled native input whose value follows what is typed."""

    def __init__(
        self,
        label: str,
        *,
        name: str,
        kind: str = "text",
        value: str = "",
        hint: str = "",
        testid: str | None = None,
        options: dict[str, str] | None = None,
        on_change: Callable[[], Any] | None = None,
        **attributes: Any,
    ) -> None:
        self.value, self.name = value, name
        element = {"area": "textarea", "select": "select"}.get(kind, "input")
        with tag("div", "field"):
            tag("label", "", label, for_=name)
            self.input = tag(
                element,
                "input",
                id=name,
                name=name,
                type=kind if element == "input" else None,
                data_testid=testid,
                aria_describedby=f"{name}-hint" if hint else None,
                **attributes,
            )
            if element == "input" and value:
                # The attribute, not the property: a page that is drawn again must not undo what was typed.
                self.input.props["^value"] = value
            with self.input:
                for option, words in (options or {}).items():
                    tag("option", "", words, value=option, selected=option == value or None)
                if element == "textarea" and value:
                    self.input._text = value  # noqa: SLF001 - NiceGUI's own way to fill an element
            if hint:
                tag("span", "hint", hint, id=f"{name}-hint")
        if kind == "password":
            # Goes out once, with its form, and is kept nowhere.
            return
        self.input.on(
            "input",
            lambda event: self._take(str(event.args or ""), on_change),
            js_handler="(e) => emit(e.target.value)",
        )

    def _take(self, value: str, on_change: Callable[[], Any] | None) -> Any:
        self.value = value
        return on_change() if on_change else None

    def fill(self, value: str) -> None:
        """Puts a value into a native input, in place of what is there."""
        self.value = value
        ui.run_javascript(f"getElement({self.input.id}).value = {json.dumps(value)}")

    def number(self, default: float = 0) -> float:
        """The value as a number; ``default`` where it is none."""
        try:
            return float(self.value)
        except ValueError:
            return default


def on_submit(form: Element, fields: Collection[Field], action: Action) -> None:
    """Acts on a form with what stands in it then: what was typed before the page came alive counts too."""

    def take(event: GenericEventArguments) -> Any:
        for field in fields:
            field.value = str(event.args.get(field.name, field.value))
        return action()

    form.on(
        "submit", take, js_handler="(e) => { e.preventDefault(); emit(Object.fromEntries(new FormData(e.target))); }"
    )


class Chip:
    """A state: dot and word, never colour alone. ``data-status`` carries the state's own word."""

    def __init__(self, testid: str | None = None) -> None:
        self._element = text("span", "", "chip", data_testid=testid)
        self._tone = ""

    def show(self, status: str, words: tuple[str, str]) -> None:
        """Shows a state in people's words and its tone."""
        said, tone = words
        if tone != self._tone:
            self._element.classes(remove=self._tone or None, add=tone)
            self._tone = tone
        if self._element.props.get("data-status") != status:
            self._element.props["data-status"] = status
            self._element.update()
        self._element.say(said)


class Facts:
    """A list of name and value whose values change; what is not known is left out. ``moments`` are shown as such."""

    def __init__(self, names: dict[str, str], *, moments: Collection[str] = ()) -> None:
        self._values: dict[str, tuple[Element, Element, Text | Moment]] = {}
        with tag("dl", "facts"):
            for key, label in names.items():
                term = tag("dt", "", label)
                with tag("dd") as value:
                    shown = Moment() if key in moments else text("span")
                self._values[key] = (term, value, shown)

    def show(self, **values: str | datetime | None) -> None:
        """Shows new values."""
        for key, value in values.items():
            term, cell, shown = self._values[key]
            for element in (term, cell):
                element.set_visibility(value is not None)
            if isinstance(shown, Moment):
                shown.show(value if isinstance(value, datetime) else None)
            elif value is not None:
                shown.say(str(value))
