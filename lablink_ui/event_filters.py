"""The filters of the events page, and the links to what they let through as a file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

from nicegui.element import Element

from backend.services.events import EventFilter
from backend.services.exports import ExportFormat
from lablink_ui.parts import Field, tag

_GROUPS = {
    "": "Everything",
    "machines": "Machines",
    "seats": "Seats",
    "operations": "Operations",
    "alarms": "Alarms and budgets",
    "pools": "Pools",
    "people": "People and sign-ins",
}
_EXPORT = "/admin/events/export"


class EventFilters:
    """Fields for a group, who, about what, and when; ``words`` comes from the search of the table below."""

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.words = ""
        self._on_change = on_change
        self._links: dict[ExportFormat, Element] = {}
        with tag("section", "card pad", aria_label="Filters"), tag("div", "fields filters"):
            self._group = self._field("What", "group", kind="select", options=_GROUPS)
            self._actor = self._field("Who", "actor", placeholder="kim, agent, rule …")
            self._about = self._field("Pool or machine", "about", placeholder="default-001")
            self._since = self._field("From (UTC)", "since", kind="datetime-local")
            self._until = self._field("Before (UTC)", "until", kind="datetime-local")

    def draw_links(self) -> None:
        """Draws the links to the files."""
        for form, words in ((ExportFormat.CSV, "Export CSV"), (ExportFormat.JSONL, "Export JSON Lines")):
            testid = f"events-export-{form}"
            self._links[form] = tag("a", "button", words, href=self._href(form), download=True, data_testid=testid)

    def wanted(self) -> EventFilter:
        """What the fields ask for now."""
        return EventFilter(
            group=self._group.value or None,
            actor=self._actor.value.strip() or None,
            about=self._about.value.strip() or None,
            words=self.words or None,
            since=_moment(self._since.value),
            until=_moment(self._until.value),
        )

    def search(self, words: str) -> None:
        """Takes what was typed into the search of the table."""
        self.words = words
        self._change()

    def _field(
        self, label: str, name: str, *, kind: str = "text", placeholder: str = "", **more: dict[str, str]
    ) -> Field:
        return Field(
            label,
            name=name,
            kind=kind,
            testid=f"events-{name}",
            on_change=self._change,
            options=more.get("options"),
            placeholder=placeholder or None,
            autocomplete="off",
        )

    def _change(self) -> None:
        for form, link in self._links.items():
            link.props["href"] = self._href(form)
            link.update()
        self._on_change()

    def _href(self, form: ExportFormat) -> str:
        wanted = self.wanted()
        asked = {
            "group": wanted.group,
            "actor": wanted.actor,
            "about": wanted.about,
            "words": wanted.words,
            "since": wanted.since and wanted.since.isoformat(),
            "until": wanted.until and wanted.until.isoformat(),
        }
        return f"{_EXPORT}?{urlencode({'format': form, **{key: value for key, value in asked.items() if value}})}"


def _moment(value: str) -> datetime | None:
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        # Half typed.
        return None
