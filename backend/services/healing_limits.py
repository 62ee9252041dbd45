"""How machines are mended: the server's figures, and those that a pool has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from backend.services.own_figures import OwnFigures
from backend.setting_keys import HealingSettings
from backend.states import Rung

OWN = OwnFigures("healing", HealingSettings, "at_once=3")


@dataclass(frozen=True, slots=True)
class HealingLimits:
    """Each means what its setting says (``setting_keys``)."""

    restart_s: float = 120.0
    reboot_s: float = 600.0
    replace_s: float = 1_800.0
    after_s: float = 30.0
    seat_grace_s: float = 900.0
    at_once: float = 10.0
    per_hour: float = 60.0
    pause_s: float = 30.0
    memory_s: float = 3_600.0
    breaker_failures: float = 5.0
    breaker_s: float = 600.0

    @classmethod
    def of(cls, settings: HealingSettings) -> HealingLimits:
        """The server's own."""
        return cls(**vars(settings))

    def over(self, own: Mapping[str, float]) -> HealingLimits:
        """These, with what a pool has of its own in place of them."""
        known = OWN.known(own)
        return replace(self, **known) if known else self

    def deadline_of(self, rung: Rung) -> timedelta:
        """How long a rung has to help; nothing if it is not tried."""
        return timedelta(
            seconds={Rung.RESTART: self.restart_s, Rung.REBOOT: self.reboot_s, Rung.REPLACE: self.replace_s}[rung]
        )
