"""When a machine is not well: the server's figures, and those that a pool has of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from backend.errors import InvalidInput
from backend.setting_keys import HealthSettings

_META = {each.name: each.metadata for each in fields(HealthSettings)}


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
        known: dict[str, Any] = {name: value for name, value in own.items() if name in _META}
        return replace(self, **known) if known else self


def read_own_limits(words: str) -> dict[str, float]:
    """``hot_c=85 memory_pct=95`` as figures.

    Raises:
        InvalidInput: a name is unknown, or a figure is none or out of range.
    """
    own: dict[str, float] = {}
    for word in re.split(r"[\s,;]+", words.strip()) if words.strip() else ():
        name, _, value = word.partition("=")
        try:
            own[name] = float(value)
        except ValueError:
            raise InvalidInput(f"health must be written as name=number, such as hot_c=85, not '{word[:80]}'.") from None
    check_own_limits(own)
    return own


def show_own_limits(own: Mapping[str, float]) -> str:
    """The same, as it is written."""
    return " ".join(f"{name}={value:g}" for name, value in sorted(own.items()))


def check_own_limits(own: Mapping[str, float]) -> None:
    """Raises:
    InvalidInput: a name is unknown or a figure is out of range; says which.
    """
    for name, value in own.items():
        if name not in _META:
            raise InvalidInput(f"health has no '{name[:40]}'; it has {', '.join(_META)}.")
        low, high = _META[name]["low"], _META[name]["high"]
        if not low <= value <= high:
            raise InvalidInput(f"health.{name} must be from {low:g} to {high:g}.")
