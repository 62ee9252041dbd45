"""What a plan would do, heard from ``terraform plan -json`` itself.

`terraform show` would tell it too, but starts the provider once more: seconds of each launch on AWS. The format:
developer.hashicorp.com/terraform/internals/machine-readable-ui (``planned_change``, ``change_summary``).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from backend.errors import LabLinkError

# What Terraform's own count calls each action; what is not here is not counted.
_COUNTED = {
    "create": ("add",),
    "update": ("change",),
    "delete": ("remove",),
    "replace": ("add", "remove"),
}
_COUNTS = ("add", "change", "remove")


class PlanUnclear(LabLinkError):
    """What was heard of a plan is not all that it would do."""

    code = "plan_unclear"


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """What becomes of one resource. ``key``: its ``for_each`` key, if it has one.

    ``action`` is Terraform's word: create, update, replace, delete, remove (from the state), move, import.
    """

    address: str
    name: str
    key: str | None
    action: str


@dataclass
class PlanHearer:
    """Listens to a plan, line by line. What stays as it is, and what is only read, is not told."""

    _changes: list[PlannedChange] = field(default_factory=list)
    _counts: dict[str, Any] | None = None

    def hear(self, raw: str) -> None:
        """One line of what Terraform says."""
        try:
            said = json.loads(raw)
        except (ValueError, RecursionError):
            return
        if not isinstance(said, dict):
            return
        if said.get("type") == "planned_change":
            self._hear_change(said["change"])
        elif said.get("type") == "change_summary":
            self._counts = said["changes"]

    def list_changes(self) -> list[PlannedChange]:
        """All that the plan would do.

        Raises:
            PlanUnclear: Terraform counts other changes than were heard, or did not come to count them.
        """
        heard = Counter(count for each in self._changes for count in _COUNTED.get(each.action, ()))
        if self._counts is None or any(self._counts.get(name) != heard[name] for name in _COUNTS):
            raise PlanUnclear(f"The plan is not clear: Terraform counts {self._counts}, but told of {dict(heard)}.")
        return self._changes

    def _hear_change(self, change: dict[str, Any]) -> None:
        resource, action = change["resource"], str(change["action"])
        if action in {"read", "noop"}:
            return
        key = resource.get("resource_key")
        name = str(resource["resource_name"])
        self._changes.append(PlannedChange(str(resource["addr"]), name, key if isinstance(key, str) else None, action))
