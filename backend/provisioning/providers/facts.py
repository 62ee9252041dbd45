"""What a provider can find out beside Terraform: before a launch, about prices, about what really exists."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from backend.provisioning.checks import Check
from backend.provisioning.machines import Machine
from backend.provisioning.state_files import Content, StateFile
from backend.services.prices import PriceList
from backend.services.views import PoolView


@dataclass(frozen=True, slots=True)
class Imports:
    """What a state has to hold of a pool: ids by address; ``tfvars`` say what only the state knew.

    ``hostnames``: the VMs among them.
    """

    ids: Mapping[str, str]
    tfvars: Mapping[str, Any] = field(default_factory=dict)
    hostnames: frozenset[str] = frozenset()


class Facts(Protocol):
    """Asked by pages, routes and sweeps. Nothing here blocks the event loop."""

    async def preflight(self, pool: PoolView, count: int) -> list[Check]:
        """How things stand for a launch of ``count`` VMs; empty where nothing can go wrong that could be asked."""

    @property
    def price_snapshot(self) -> PriceList | None:
        """What this version of LabLink knows of prices by itself."""

    async def find_prices(self, kinds: Collection[str]) -> PriceList | None:
        """What the provider says now; None if it does not tell."""

    async def find_machines(self, ids: Collection[str] = ()) -> list[Machine] | None:
        """All machines of this server, and those with these ids whosever they are; None: there is nothing to compare.

        Raises:
            LabLinkError: the provider cannot be asked.
        """

    async def remove_machine(self, machine_id: str) -> None:
        """Takes one machine of this server away for good, by its id.

        Raises:
            LabLinkError: it is not ours, or could not be removed.
        """

    async def find_imports(self, pool: PoolView, machines: Sequence[Machine]) -> Imports:
        """What a new state of the pool has to take in.

        Raises:
            LabLinkError: it cannot be known, or a state cannot be rebuilt here.
        """

    async def list_states(self, pool: PoolView) -> list[StateFile]:
        """The pool's state and its backups, the newest first."""

    async def read_state(self, pool: PoolView, name: str | None = None) -> Content:
        """The state, or one of its backups; None where there is none."""

    async def put_state_aside(self, pool: PoolView, suffix: str) -> None:
        """Moves a state that cannot be used out of the way."""
