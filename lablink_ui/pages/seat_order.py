"""The cards of a seat's page, in their order."""

from __future__ import annotations

from collections.abc import Callable

from lablink_ui.pages.seat_browsers import BrowsersCard
from lablink_ui.pages.seat_cards import SeatCard, SeatVisit
from lablink_ui.pages.seat_crd import CrdCard
from lablink_ui.pages.seat_interruption import InterruptionCard
from lablink_ui.pages.seat_key import KeyCard
from lablink_ui.pages.seat_link import LinkCard
from lablink_ui.pages.seat_move import MoveCard
from lablink_ui.pages.seat_rescue import RescueCard
from lablink_ui.pages.seat_terminal import TerminalCard
from lablink_ui.pages.seat_time import TimeCard

CARDS: tuple[Callable[[SeatVisit], SeatCard], ...] = (
    InterruptionCard,
    RescueCard,
    TerminalCard,
    CrdCard,
    LinkCard,
    KeyCard,
    TimeCard,
    MoveCard,
    BrowsersCard,
)
