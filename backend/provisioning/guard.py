"""The guard: reads a plan before it is applied and refuses one that touches a machine somebody may work on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

# What leaves an existing machine as it is; anything else, known to us or not, touches it.
_HARMLESS = frozenset({"no-op", "read", "create"})


@dataclass(frozen=True, slots=True)
class Verdict:
    """``refusals`` name each thing the plan must not do; ``replaced`` are half-made VMs that it makes anew."""

    refusals: tuple[str, ...]
    replaced: tuple[str, ...]

    @property
    def is_allowed(self) -> bool:
        """Whether the plan may be applied."""
        return not self.refusals


def check_plan(plan: Mapping[str, Any], *, destroying: Collection[str], living: Collection[str]) -> Verdict:
    """Judges a plan (the JSON of ``terraform show -json``, developer.hashicorp.com/terraform/internals/json-format).

    A VM is known by the ``for_each`` key of its resources. ``living`` have sent a heartbeat, once.
    """
    refusals, replaced = [], []
    for change in plan.get("resource_changes", []):
        hostname, actions = change.get("index"), set(change["change"]["actions"])
        if not isinstance(hostname, str) or change.get("mode") != "managed" or hostname in destroying:
            continue
        if not actions <= _HARMLESS and hostname in living:
            refusals.append(f"it would {_verb(actions)} {hostname}, which is a living machine")
        elif "delete" in actions and "create" in actions:
            replaced.append(hostname)
    return Verdict(tuple(sorted(set(refusals))), tuple(sorted(set(replaced))))


def _verb(actions: Collection[str]) -> str:
    if "delete" in actions:
        return "replace" if "create" in actions else "delete"
    return "forget" if "forget" in actions else "change"
