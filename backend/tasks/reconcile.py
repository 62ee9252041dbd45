"""Reconciling: every few minutes database, Terraform's state and cloud are compared; people say what is mended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.live.changes import ChangeSet
from backend.live.read_model import ReadModel
from backend.provisioning.comparison import compare, find_homeless
from backend.provisioning.machines import HeldState, StateUnreadable, parse_state
from backend.provisioning.providers import Provider
from backend.services.actor import Actor
from backend.services.findings import (
    FindingView,
    PoolFacts,
    adopt_stranger,
    find_finding,
    get_finding,
    give_up_vm,
    list_pool_facts,
    record_findings,
    record_mended,
)
from backend.services.operations import request_rebuild
from backend.services.prices import list_kinds, record_prices
from backend.states import OPEN_OPERATION, Mend

LOOK_EVERY_S = 180.0
PRICES_EVERY_S = 24 * 3_600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mended:
    """What was done, in a sentence; ``operation_id`` where an operation does it."""

    sentence: str
    operation_id: int | None = None


class Reconciler:
    """``run`` is its one task; pages and routes ask it to look at once, or to mend."""

    def __init__(self, db: Database, providers: Mapping[str, Provider], live: ReadModel) -> None:
        self._db, self._providers = db, providers
        self._news = asyncio.Event()
        self._looking = asyncio.Lock()
        live.subscribe(self._note)

    async def run(self) -> None:
        """Looks every few minutes, and whenever an operation has ended, until cancelled."""
        while True:
            self._news.clear()
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._news.wait()

    async def read_prices(self) -> None:
        """Learns what machines cost: from the snapshot, and from the provider where it tells."""
        for name, provider in self._providers.items():
            if provider.facts.price_snapshot is not None:
                await record_prices(self._db, name, provider.facts.price_snapshot)
            kinds = await list_kinds(self._db, name)
            listed = await provider.facts.find_prices(kinds) if kinds else None
            if listed is not None:
                await record_prices(self._db, name, listed)

    async def look(self) -> None:
        """Compares, and stores what was found.

        Raises:
            LabLinkError: a provider could not be asked; what was found before stays.
        """
        async with self._looking:
            for name, provider in self._providers.items():
                await self._look_at(name, provider)

    async def mend(self, finding_id: int, *, actor: Actor) -> Mended:
        """Does what a finding's button says, if a fresh look still finds it.

        Raises:
            NotFound: it is settled already.
            Conflict: nothing can be done about it from here, or not now.
            LabLinkError: the provider could not be asked.
        """
        actor.must_operate()
        seen = await get_finding(self._db, finding_id)
        await self.look()
        finding = await find_finding(self._db, seen.kind, seen.subject)
        if finding is None:
            raise NotFound("This is settled already: a fresh look does not find it any more.", code="unknown_finding")
        return await self._mend(finding, actor)

    async def _mend(self, finding: FindingView, actor: Actor) -> Mended:
        facts = self._providers[finding.provider].facts
        match finding.mend:
            case Mend.MARK_FAILED:
                hostname = await give_up_vm(self._db, finding.id, actor=actor)
                return Mended(f"{hostname} is marked as failed; a seat on it has moved on.")
            case Mend.ADOPT:
                hostname = await adopt_stranger(self._db, finding.id, actor=actor)
                return Mended(f"{hostname} was taken in, quarantined.")
            case Mend.DESTROY if finding.machine_id:
                await facts.remove_machine(finding.machine_id)
                done = f"{finding.machine_id} ({finding.hostname}) was taken away"
            case Mend.START if finding.hostname:
                await self._providers[finding.provider].power_on([finding.hostname])
                done = f"{finding.hostname} was switched on"
            case Mend.REBUILD if finding.pool:
                operation = await request_rebuild(self._db, finding.pool, actor=actor)
                return Mended(f"The state of pool {finding.pool} is being rebuilt.", operation.id)
            case _:
                raise Conflict(finding.sentence, code="mend_by_hand")
        await record_mended(self._db, finding, done, actor=actor)
        await self.look()
        return Mended(f"{done}.")

    async def _look_at(self, name: str, provider: Provider) -> None:
        pools = await list_pool_facts(self._db, name)
        states = {each.pool.id: await _read_state(provider, each) for each in pools if not each.is_busy}
        ids = [vm.id for state in states.values() if state for vm in state.vms.values()]
        machines = await provider.facts.find_machines(ids)
        if machines is None:
            return
        found = find_homeless([each.pool.name for each in pools], machines)
        for each in pools:
            if not each.is_busy:
                found += compare(each, states[each.pool.id], machines)
        await record_findings(self._db, name, found, looked_at=pools)

    def _note(self, changes: ChangeSet) -> None:
        if any(each.status not in OPEN_OPERATION for each in changes.operations.upserts):
            self._news.set()


async def _read_state(provider: Provider, facts: PoolFacts) -> HeldState | None:
    """None where it is missing or cannot be read; that it was never there is told by the pool's having no VMs."""
    try:
        return parse_state(await provider.facts.read_state(facts.pool))
    except StateUnreadable as exc:
        logger.warning("pool %s: %s", facts.pool.name, exc.message)
        return None
