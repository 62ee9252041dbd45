"""The vCPU quotas of EC2: which one an instance type counts against (docs.aws.amazon.com/ec2/latest/instancetypes)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of the service ``ec2``: how many vCPUs may run at once in a region."""

    code: str
    name: str


# Letters before the generation -> codes for on-demand and spot, and how AWS names the family.
_FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "dl": ("L-6E869C2A", "L-85EED4F7", "DL"),
    "f": ("L-74FC7D96", "L-88CF9481", "F"),
    "g": ("L-DB2E81BA", "L-3819A6DF", "G and VT"),
    "inf": ("L-1945791B", "L-B5D1601B", "Inf"),
    "p": ("L-417A185B", "L-7212CCBC", "P"),
    "trn": ("L-2C3B7624", "L-6B0D517C", "Trn"),
    "vt": ("L-DB2E81BA", "L-3819A6DF", "G and VT"),
    "x": ("L-7295265B", "L-E3A00192", "X"),
}
_STANDARD = ("L-1216C47A", "L-34B43A08", "Standard (A, C, D, H, I, M, R, T, Z)")


def find_quota(instance_type: str, *, spot: bool) -> Quota | None:
    """The quota that an instance of this type counts against; None where we do not know."""
    letters = (re.match(r"[a-z]+", instance_type) or [""])[0]
    family = _FAMILIES.get(letters) or (_STANDARD if letters[:1] in set("acdhimrtz") and len(letters) <= 2 else None)
    if family is None:
        return None
    on_demand, of_spot, name = family
    if spot:
        return Quota(of_spot, f"All {name} Spot Instance Requests")
    return Quota(on_demand, f"Running On-Demand {name} instances")
