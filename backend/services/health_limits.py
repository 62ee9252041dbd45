"""When a machine is not well: the server's figures, and those that a pool has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from backend.services.own_figures import OwnFigures
from backend.setting_keys import HealthSettings

OWN = OwnFigures("health", HealthSettings, "hot_c=85")


@dataclass(frozen=True, slots=True)
class HealthLimits:
    """Each means what its setting says (``setting_keys``). ``agent_version``: the server's own; None if unknown."""

    disk_free_pct: float = 10.0
    disk_free_gb: float = 10.0
    memory_pct: float = 97.0
    hot_c: float = 90.0
    clock_skew_s: float = 30.0
    gpus: int = 0
    settle_s: float = 60.0
    agent_version: str | None = None

    @classmethod
    def of(cls, settings: HealthSettings, *, agent_version: str | None = None) -> HealthLimits:
        """The server's own."""
        return cls(**vars(settings), agent_version=agent_version)

    def over(self, own: Mapping[str, float]) -> HealthLimits:
        """These, with what a pool has of its own in place of them."""
        known: dict[str, Any] = OWN.known(own)
        return replace(self, **known) if known else self
