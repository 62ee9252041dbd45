"""The frame around pages: for admins with navigation, for researchers without; both say when they are not live."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from nicegui import ui
from nicegui.element import Element

from lablink_ui.components import Ask
from lablink_ui.parts import Text, form_token_field, icon_of, tag, text
from lablink_ui.theme import use_theme
from lablink_ui.words import count

# Serves a page at a path. On a busy server it comes late, which is better than the error that NiceGUI shows after 3 s;
# a page whose browser has not connected is dropped by NiceGUI after 60 s.
page_at = partial(ui.page, response_timeout=50.0)
NAVIGATION = (
    ("overview", "Overview", "/admin"),
    ("machines", "Machines", "/admin/instances"),
    ("pools", "Pools", "/admin/pools"),
    ("schedules", "Schedules", "/admin/schedules"),
    ("operations", "Operations", "/admin/operations"),
    ("events", "Events", "/admin/events"),
    ("people", "People", "/admin/people"),
)


class _Bell:
    """The link to the alarms: silent, or with the number of those that nobody has acknowledged."""

    def __init__(self, *, is_here: bool) -> None:
        self._number = -1
        here = "page" if is_here else None
        with tag("a", "icon-button bell", href="/admin/alarms", title="Alarms", aria_current=here) as self._link:
            icon_of("bell")
            self._badge = text("span", "", "badge", aria_hidden="true")
            tag("span", "sr", "Alarms")
        self._link.props["data-testid"] = "alarm-bell"
        # Told to screen readers when it changes, and only then.
        self._said = text("span", "", "sr", role="status")
        self.show(0)

    def show(self, number: int) -> None:
        if number == self._number:
            return
        self._number = number
        self._badge.say(str(number) if number < 100 else "99+")
        self._badge.set_visibility(number > 0)
        self._link.props["data-status"] = str(number)
        self._link.update()
        self._said.say(f"{count(number, 'alarm')} to look at" if number else "")


@dataclass
class Frame:
    """The frame of a page: where its title's buttons go, its dialog, and its live mark."""

    ask: Ask
    subtitle: Text
    buttons: Element
    _chip: Text
    _stale: Element
    _bell: _Bell | None = None
    _is_live: bool = True

    def ring(self, alarms: int) -> None:
        """Shows how many alarms nobody has acknowledged."""
        if self._bell is not None:
            self._bell.show(alarms)

    def set_live(self, *, is_live: bool) -> None:
        """Shows whether what the page says is true right now."""
        if is_live == self._is_live:
            return
        self._is_live = is_live
        status = "live" if is_live else "stale"
        self._chip.classes(remove="good busy", add="good" if is_live else "busy")
        self._chip.props["data-status"] = self._stale.props["data-status"] = status
        self._chip.say("Live" if is_live else "Database away")
        self._chip.update()
        self._stale.update()


@contextmanager
def admin_frame(title: str, *, active: str, user: str, subtitle: str = " ") -> Iterator[Frame]:
    """The frame of an admin's page; the page's parts go inside."""
    use_theme()
    ui.page_title(f"{title} · LabLink")
    tag("a", "skip", "Skip to the content", href="#content")
    chip, stale, bell = _top(user, is_alarms=active == "alarms")
    with tag("div", "shell"):
        with tag("div", "side"), tag("nav", aria_label="Console"):
            for name, words, href in NAVIGATION:
                with tag("a", href=href, aria_current="page" if name == active else None):
                    icon_of(name)
                    tag("span", "", words)
        with tag("div", "page", id="content", tabindex="-1"):
            with tag("div", "head"):
                with tag("div", "title"):
                    tag("h1", "", title)
                    said = text("p", subtitle, "sub")
                buttons = tag("div", "push")
            yield Frame(Ask(), said, buttons, chip, stale, bell)


@contextmanager
def public_frame(title: str, *, wide: bool = False) -> Iterator[Frame]:
    """The frame of a researcher's page: one panel, nothing to get lost in."""
    use_theme()
    ui.page_title(f"{title} · LabLink")
    chip, stale, _ = _top(None)
    with tag("div", "public"), tag("div", "panel wide" if wide else "panel"):
        with tag("div", "hero"):
            tag("h1", "", title)
            said = text("p", " ", "sub")
        buttons = tag("div", "row")
        buttons.set_visibility(False)
        yield Frame(Ask(), said, buttons, chip, stale)


def _top(user: str | None, *, is_alarms: bool = False) -> tuple[Text, Element, _Bell | None]:
    bell = None
    with tag("div", "top"):
        with tag("a", "brand", href="/admin" if user else "/"):
            icon_of("logo")
            tag("span", "", "LabLink")
        with tag("span", "live-chip", role="status"):
            chip = text("span", "Live", "chip good when-on", data_testid="live-state", data_status="live")
            tag("span", "chip busy when-off", "Reconnecting")
        if user:
            bell = _Bell(is_here=is_alarms)
        with tag(
            "button",
            "icon-button" if user else "icon-button push",
            type="button",
            aria_label="Light or dark",
            title="Light or dark",
        ) as toggle:
            icon_of("moon")
        toggle.on("click", js_handler="() => window.lablinkToggleTheme()")
        if user:
            with tag("a", "who", href="/admin/account", aria_label=f"Your account: {user}", data_testid="account-link"):
                tag("span", "avatar", user[:1], aria_hidden="true")
                tag("span", "name", user)
            with tag("form", action="/logout", method="post"):
                form_token_field()
                with tag("button", "icon-button", type="submit", aria_label="Sign out", title="Sign out"):
                    icon_of("out")
    tag(
        "div",
        "banner offline",
        "The connection was lost. This page shows the last known state and reconnects by itself.",
        role="status",
    )
    stale = tag(
        "div",
        "banner stale",
        "The database is away. This page shows the last known state and becomes true again by itself.",
        role="status",
        data_status="live",
    )
    return chip, stale, bell
