"""Figures that a pool has of its own, in place of the server's: how they are written, and what they may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields

from backend.errors import InvalidInput


class OwnFigures:
    """Those of one group of settings, all of them numbers. ``example`` shows how one is written."""

    def __init__(self, group: str, settings: type, example: str) -> None:
        self._group, self._example = group, example
        self._meta = {each.name: each.metadata for each in fields(settings)}

    def read(self, words: str) -> dict[str, float]:
        """``name=number …`` as figures.

        Raises:
            InvalidInput: a name is unknown, or a figure is none or out of range.
        """
        own: dict[str, float] = {}
        for word in re.split(r"[\s,;]+", words.strip()) if words.strip() else ():
            name, _, value = word.partition("=")
            try:
                own[name] = float(value)
            except ValueError:
                said = f"{self._group} must be written as name=number, such as {self._example}, not '{word[:80]}'."
                raise InvalidInput(said) from None
        self.check(own)
        return own

    def check(self, own: Mapping[str, float]) -> None:
        """Raises:
        InvalidInput: a name is unknown or a figure is out of range; says which.
        """
        for name, value in own.items():
            if name not in self._meta:
                raise InvalidInput(f"{self._group} has no '{name[:40]}'; it has {', '.join(self._meta)}.")
            low, high = self._meta[name]["low"], self._meta[name]["high"]
            if not low <= value <= high:
                raise InvalidInput(f"{self._group}.{name} must be from {low:g} to {high:g}.")

    def known(self, own: Mapping[str, float]) -> dict[str, float]:
        """Those that this version knows."""
        return {name: value for name, value in own.items() if name in self._meta}


def show_figures(own: Mapping[str, float]) -> str:
    """Figures as they are written."""
    return " ".join(f"{name}={value:g}" for name, value in sorted(own.items()))
