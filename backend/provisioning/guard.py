"""The guard: reads a plan before it is applied and refuses one that touches a machine somebody may work on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from backend.provisioning.planned import PlannedChange

# What leaves an existing machine as it is; anything else, known to us or not, touches it.
_HARMLESS = frozenset({"create", "import", "move"})
_VERBS = {"replace": "replace", "delete": "delete", "remove": "forget"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``refusals`` name each thing the plan must not do; ``replaced`` are half-made VMs that it makes anew."""

    refusals: tuple[str, ...]
    replaced: tuple[str, ...]

    @property
    def is_allowed(self) -> bool:
        """Whether the plan may be applied."""
        return not self.refusals


def check_plan(changes: Iterable[PlannedChange], *, destroying: Collection[str], living: Collection[str]) -> Verdict:
    """Judges a plan by its changes.

    A VM is known by the ``for_each`` key of its resources. ``living`` have sent a heartbeat, once.
    """
    refusals, replaced = [], []
    for change in changes:
        if change.key is None or change.key in destroying:
            continue
        if change.action not in _HARMLESS and change.key in living:
            refusals.append(f"it would {_VERBS.get(change.action, 'change')} {change.key}, which is a living machine")
        elif change.action == "replace":
            replaced.append(change.key)
    return Verdict(tuple(sorted(set(refusals))), tuple(sorted(set(replaced))))
