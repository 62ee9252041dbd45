"""The cards of a seat's page, in their order."""

from __future__ import annotations

from collections.abc import Callable

from lablink_ui.pages.seat_cards import SeatCard, SeatVisit
from lablink_ui.pages.seat_crd import CrdCard

CARDS: tuple[Callable[[SeatVisit], SeatCard], ...] = (CrdCard,)
