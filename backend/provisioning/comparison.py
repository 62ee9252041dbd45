"""Compares what the database, Terraform's state and the cloud say about one pool. Pure: it asks nobody."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from backend.provisioning.machines import HeldState, HeldVm, Machine
from backend.services.findings import Found, KnownVm, PoolFacts
from backend.states import FindingKind, VmStatus

# Of these the machine shall exist and run. A failed one may never have been made; the others are being worked on.
_EXISTING = frozenset({VmStatus.BOOTING, VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING, VmStatus.QUARANTINED})


def compare(facts: PoolFacts, state: HeldState | None, machines: Sequence[Machine]) -> list[Found]:
    """The findings of a pool. ``state`` None: it is not there, or cannot be read."""
    return list(_Comparison(facts, state, machines).find())


def find_homeless(pools: Sequence[str], machines: Sequence[Machine]) -> list[Found]:
    """Machines of ours whose pool is none of these."""
    homeless = [each for each in machines if each.is_ours and each.pool not in pools]
    return [_homeless(each) for each in homeless]


class _Comparison:
    def __init__(self, facts: PoolFacts, state: HeldState | None, machines: Sequence[Machine]) -> None:
        self._facts, self._held = facts, dict(state.vms) if state else {}
        self._is_lost = state is None
        self._by_id = {each.id: each for each in machines}
        self._by_name: dict[str, list[Machine]] = defaultdict(list)
        for each in sorted(machines, key=lambda machine: machine.started_at):
            if each.is_ours and each.pool == facts.pool.name:
                self._by_name[each.hostname].append(each)
        self._renamed: set[str] = set()

    def find(self) -> Iterator[Found]:
        for vm in self._facts.vms:
            yield from self._look_at(vm)
        yield from self._find_strangers()
        yield from self._find_ghosts()
        if self._is_lost and (self._by_name or any(vm.status in _EXISTING for vm in self._facts.vms)):
            yield self._found(
                FindingKind.STATE_LOST,
                self._facts.pool.name,
                f"Terraform's state of pool {self._facts.pool.name} is missing or cannot be read: "
                "nothing can be launched or destroyed in it as it should be.",
            )

    def _look_at(self, vm: KnownVm) -> Iterator[Found]:
        held, mine = self._held.get(vm.hostname), self._by_name.get(vm.hostname, [])
        chosen = next((each for each in mine if held and each.id == held.id), mine[0] if mine else None)
        for each in mine:
            if each is not chosen:
                yield self._found(
                    FindingKind.TWIN,
                    each.id,
                    f"{_name(each)} has the name of {vm.hostname}, which is {chosen.id if chosen else 'another'}.",
                    each,
                )
        if vm.status not in _EXISTING:
            return
        if chosen is None:
            yield self._find_missing(vm, held)
        else:
            yield from self._look_closer(vm, held, chosen)

    def _find_missing(self, vm: KnownVm, held: HeldVm | None) -> Found:
        renamed = self._by_id.get(held.id) if held else None
        if renamed is None:
            sentence = f"{vm.hostname} is {vm.status} here, but its machine is gone from AWS."
            return self._found(FindingKind.GONE, vm.hostname, sentence)
        self._renamed.add(renamed.id)
        sentence = (
            f"The tags of {renamed.id} were changed, so {vm.hostname} is not known as ours any more: it is left alone. "
            "Put its tags back by hand (Name, ManagedBy, Environment, Server, Pool)."
        )
        return self._found(FindingKind.DISOWNED, vm.hostname, sentence, renamed)

    def _look_closer(self, vm: KnownVm, held: HeldVm | None, machine: Machine) -> Iterator[Found]:
        if machine.is_off:
            yield self._found(FindingKind.STOPPED, vm.hostname, f"{vm.hostname} is switched off on AWS.", machine)
        if self._is_lost:
            return
        if held is None or held.id != machine.id:
            sentence = f"{vm.hostname} ({machine.id}) is not in Terraform's state."
            yield self._found(FindingKind.UNMANAGED, vm.hostname, sentence, machine)
            return
        changes = _differences(held, machine)
        if changes:
            sentence = f"{vm.hostname} was changed on AWS: {'; '.join(changes)}."
            yield self._found(FindingKind.CHANGED, vm.hostname, sentence, machine)

    def _find_strangers(self) -> Iterator[Found]:
        known = {vm.hostname for vm in self._facts.vms}
        for hostname, machines in sorted(self._by_name.items()):
            for each in machines:
                if hostname not in known and each.id not in self._renamed:
                    sentence = f"{_name(each)} is tagged as ours, but no machine of that name is known here."
                    yield self._found(FindingKind.STRANGER, each.id, sentence, each)

    def _find_ghosts(self) -> Iterator[Found]:
        known = {vm.hostname for vm in self._facts.vms}
        for hostname, held in sorted(self._held.items()):
            if hostname not in known and hostname not in self._by_name and held.id not in self._by_id:
                sentence = f"Terraform's state still holds {hostname}, which exists neither here nor on AWS."
                yield self._found(FindingKind.GHOST, hostname, sentence)

    def _found(self, kind: FindingKind, subject: str, sentence: str, machine: Machine | None = None) -> Found:
        return Found(self._facts.pool.id, kind, subject, sentence, _facts(machine) if machine else {})


def _homeless(machine: Machine) -> Found:
    sentence = f"{_name(machine)} is tagged as ours, but there is no pool '{machine.pool}'."
    return Found(None, FindingKind.STRANGER, machine.id, sentence, _facts(machine))


def _facts(machine: Machine) -> dict[str, str]:
    return {"machine_id": machine.id, "hostname": machine.hostname, "kind": machine.kind}


def _name(machine: Machine) -> str:
    return f"{machine.id} ({machine.hostname or 'without a name'}, {machine.kind})"


def _differences(held: HeldVm, machine: Machine) -> list[str]:
    found = []
    if held.kind and held.kind != machine.kind:
        found.append(f"its type is {machine.kind}, not {held.kind}")
    names = sorted(name for name in {*held.tags, *machine.tags} if _differs(held.tags, machine.tags, name))
    if names:
        found.append(f"its tags differ ({', '.join(names)})")
    return found


def _differs(held: Mapping[str, str], now: Mapping[str, str], name: str) -> bool:
    return not name.startswith("aws:") and held.get(name) != now.get(name)
