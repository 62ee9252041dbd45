"""The cards of a seat's page: each shows one side of the seat, drawn once and told of every change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from backend.house import House
from backend.live.changes import ChangeSet
from backend.services.views import ClaimView, PoolView, VmView
from lablink_ui.frame import Frame


@dataclass(frozen=True, slots=True)
class SeatVisit:
    """Whose seat is looked at, from which browser and address."""

    house: House
    frame: Frame
    claim: ClaimView
    owner_hash: bytes
    address: str | None


@dataclass(frozen=True, slots=True)
class SeatNow:
    """The seat as it is; ``kept`` is the machine that it has left. ``changes`` is None at the first showing."""

    claim: ClaimView
    pool: PoolView | None
    vm: VmView | None
    kept: VmView | None = None
    changes: ChangeSet | None = None


class SeatCard(Protocol):
    """A card, drawn by its own constructor."""

    def show(self, now: SeatNow) -> None:
        """Shows the seat as it is now."""
