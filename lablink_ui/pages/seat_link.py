"""The link that a pool offers its seats."""

from __future__ import annotations

from urllib.parse import quote

from backend.states import ClaimStatus
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import tag, text


class LinkCard:
    """Shown while the seat is active and its pool has a link."""

    def __init__(self, _: SeatVisit) -> None:
        with tag("section", "card pad", aria_label="Link") as self._card:
            tag("h2", "", "Your machine's address")
            self._link = text("a", "", "mono", target="_blank", rel="noopener noreferrer", data_testid="seat-link")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Shows the seat as it is now."""
        template = now.pool.url_template if now.pool else None
        is_on = now.claim.status is ClaimStatus.ACTIVE and template is not None
        self._card.set_visibility(is_on)
        if is_on and template:
            values = {"{hostname}": now.claim.hostname or "", "{email}": now.claim.email}
            for name, value in values.items():
                template = template.replace(name, quote(value, safe="@"))
            self._link.props["href"] = template
            self._link.say(template)
