"""What is to be known of VMs on this machine: nothing that the server would not see by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from pathlib import Path

from backend.errors import Conflict
from backend.provisioning.checks import Check
from backend.provisioning.machines import Machine
from backend.provisioning.providers.facts import Imports
from backend.provisioning.state_files import (
    Content,
    StateFile,
    list_state_files,
    put_state_file_aside,
    read_state_file,
)
from backend.services.prices import PriceList
from backend.services.views import PoolView

_NOTHING = "Machines of this computer are started, not found: their state cannot be rebuilt."


class LocalFacts:
    """States are files; machines are ended at the server's start if no row knows them (``remove_strangers``)."""

    price_snapshot: PriceList | None = None

    def __init__(self, pools: Path) -> None:
        self._pools = pools

    async def preflight(self, _: PoolView, _count: int, /) -> list[Check]:
        """None: what a launch needs is here."""
        return []

    async def find_prices(self, _: Collection[str], /) -> PriceList | None:
        """They cost nothing."""
        return None

    async def find_machines(self, _: Collection[str] = (), /) -> list[Machine] | None:
        """Nothing to compare."""
        return None

    async def remove_machine(self, _: str, /) -> None:
        """Never found, so never removed.

        Raises:
            Conflict
        """
        raise Conflict(_NOTHING)

    async def find_imports(self, _: PoolView, _machines: Sequence[Machine], /) -> Imports:
        """Not to be had.

        Raises:
            Conflict
        """
        raise Conflict(_NOTHING)

    async def list_states(self, pool: PoolView) -> list[StateFile]:
        """The files in the pool's directory."""
        return await asyncio.to_thread(list_state_files, self._pools / str(pool.id))

    async def read_state(self, pool: PoolView, name: str | None = None) -> Content:
        """One of them."""
        return await asyncio.to_thread(read_state_file, self._pools / str(pool.id), name)

    async def put_state_aside(self, pool: PoolView, suffix: str) -> None:
        """Renames the file."""
        await asyncio.to_thread(put_state_file_aside, self._pools / str(pool.id), suffix)
