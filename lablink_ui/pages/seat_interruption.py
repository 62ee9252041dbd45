"""The card that warns of the end of a machine that the cloud takes away."""

from __future__ import annotations

from backend.states import HOLDING_CLAIM
from lablink_ui.components.seat_parts import UntilEnd
from lablink_ui.pages.seat_cards import SeatNow, SeatVisit
from lablink_ui.parts import tag, text

_WARNING = (
    "The cloud takes this machine away, and all that is on it is lost. Save your work elsewhere now. "
    "You keep your seat: move to another machine below."
)


class InterruptionCard:
    """How long the machine lasts."""

    def __init__(self, _: SeatVisit) -> None:
        with tag("section", "card pad", aria_label="The end of this machine") as self._card:
            # Always there, so that a screen reader says at once what comes into it; the countdown it does not say.
            self._warning = text("p", "", "note warn", role="alert", data_testid="seat-interruption")
            with tag("p", "", data_testid="seat-interruption-left"):
                text("span", "It ends in ")
                self._left = UntilEnd()
                text("span", ".")
        self._card.set_visibility(False)

    def show(self, now: SeatNow) -> None:
        """Warns whoever sits at a machine that ends."""
        ends_at = now.vm.interruption_at if now.vm and now.claim.status in HOLDING_CLAIM else None
        self._card.set_visibility(ends_at is not None)
        self._left.show(ends_at)
        self._warning.say(_WARNING if ends_at else "")
