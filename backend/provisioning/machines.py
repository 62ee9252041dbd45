"""Machines as a cloud knows them, and as Terraform's state holds them: what reconciling compares."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.errors import LabLinkError
from backend.provisioning.output import VM_RESOURCE


class StateUnreadable(LabLinkError):
    """There is a state, but it is not one of Terraform's."""

    code = "state_unreadable"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine in the cloud. ``is_ours``: it bears every tag by which this server knows its own."""

    id: str
    hostname: str
    pool: str
    is_ours: bool
    is_off: bool
    kind: str
    image: str
    started_at: str
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldVm:
    """A VM as a state holds it."""

    id: str
    kind: str | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeldState:
    """A state: its VMs by hostname, and the address of every resource in it."""

    vms: Mapping[str, HeldVm] = field(default_factory=dict)
    addresses: frozenset[str] = frozenset()


def parse_state(content: bytes | None) -> HeldState | None:
    """What a state holds (its format has version 4 since Terraform 0.12); None where there is none.

    Raises:
        StateUnreadable: this is no state.
    """
    if content is None:
        return None
    try:
        state = json.loads(content)
        if state["version"] != 4:
            raise StateUnreadable(f"The state has version {state['version']}, which is not known here.")
        vms, addresses = {}, set()
        for resource in state.get("resources", []):
            if resource["mode"] != "managed":
                continue
            for each in resource["instances"]:
                key = each.get("index_key")
                place = "" if key is None else f"[{json.dumps(key)}]"
                addresses.add(f"{resource['type']}.{resource['name']}{place}")
                if resource["name"] == VM_RESOURCE and key is not None:
                    vms[str(key)] = _held(each["attributes"])
        return HeldState(vms, frozenset(addresses))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise StateUnreadable(f"The state cannot be read ({type(exc).__name__}).") from exc


def _held(attributes: Mapping[str, Any]) -> HeldVm:
    return HeldVm(str(attributes.get("id")), attributes.get("instance_type"), dict(attributes.get("tags") or {}))
