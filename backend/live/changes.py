"""What open pages are told: the picture of everything that lives, and the difference from one picture to the next."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from backend.services.alarms import AlarmView
from backend.services.views import ClaimView, OperationView, PoolView, VmView
from backend.states import ClaimStatus, VmStatus

View = TypeVar("View", bound=Hashable)
Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Changes(Generic[View]):
    """The views of one kind that are new or different, and the ids of those that are gone."""

    upserts: tuple[View, ...] = ()
    removals: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.upserts or self.removals)


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Everything that changed in one tick. ``seq`` grows by one each time: a page that sees a gap starts over.

    The sets of ids say that there is more to read (a VM's events or logs, an operation's log) for whoever shows it.
    ``touched`` says the same of tables that stand in no snapshot, as the parents of the rows that changed; after a gap
    ``is_whole``: any of them may have.
    """

    seq: int
    vms: Changes[VmView] = Changes()
    pools: Changes[PoolView] = Changes()
    claims: Changes[ClaimView] = Changes()
    operations: Changes[OperationView] = Changes()
    alarms: Changes[AlarmView] = Changes()
    eventful_vms: frozenset[int] = frozenset()
    logged_vms: frozenset[int] = frozenset()
    logged_operations: frozenset[int] = frozenset()
    has_events: bool = False
    has_sessions: bool = False
    touched: Mapping[str, frozenset[int]] = field(default_factory=dict)
    is_whole: bool = False

    def touches(self, table: str, parent: int | None = None) -> bool:
        """Whether rows of ``table`` (of this parent, if one is named) may have changed."""
        return self.is_whole or (table in self.touched and (parent is None or parent in self.touched[table]))

    def __bool__(self) -> bool:
        ids = self.eventful_vms or self.logged_vms or self.logged_operations
        return bool(
            self.vms
            or self.pools
            or self.claims
            or self.operations
            or self.alarms
            or ids
            or self.has_events
            or self.has_sessions
            or self.touched
        )


@dataclass(frozen=True, slots=True)
class PoolCount:
    """How many living machines a pool has, how many of them are free and in use, and how many people wait."""

    machines: int = 0
    free: int = 0
    used: int = 0
    line: int = 0


@dataclass(slots=True)
class Snapshot:
    """All pools, living VMs, open claims and alarms, recent operations, by id. Only the read model writes it."""

    seq: int = 0
    is_live: bool = False
    pools: dict[int, PoolView] = field(default_factory=dict)
    vms: dict[int, VmView] = field(default_factory=dict)
    claims: dict[int, ClaimView] = field(default_factory=dict)
    operations: dict[int, OperationView] = field(default_factory=dict)
    alarms: dict[int, AlarmView] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    _made: dict[Hashable, tuple[int, object]] = field(default_factory=dict)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What ``make`` makes of this picture: made once, however many pages show it."""
        seq, made = self._made.get(key, (None, None))
        if seq != self.seq:
            made = make()
            self._made[key] = self.seq, made
        return cast("Made", made)

    def count_pool(self, pool_id: int) -> PoolCount:
        """What stands in a pool."""
        return self.once("pools", self._count_pools).get(pool_id, PoolCount())

    def find_pool(self, name: str) -> PoolView | None:
        """The pool of this name."""
        return next((pool for pool in self.pools.values() if pool.name == name), None)

    def find_vm(self, hostname: str) -> VmView | None:
        """The living VM of this name."""
        return next((vm for vm in self.vms.values() if vm.hostname == hostname), None)

    def list_real_vms(self) -> list[VmView]:
        """The living VMs, without those that a rehearsal simulates."""
        simulated = {pool.id for pool in self.pools.values() if pool.is_rehearsal}
        return [vm for vm in self.vms.values() if vm.pool_id not in simulated]

    def map_kept(self) -> dict[int, VmView]:
        """The VMs that are kept for a seat that has left them, by its claim."""
        return self.once("kept", lambda: {vm.kept_for: vm for vm in self.vms.values() if vm.kept_for is not None})

    @property
    def ringing(self) -> int:
        """How many alarms nobody has acknowledged."""
        return sum(alarm.acknowledged_at is None for alarm in self.alarms.values())

    def count_line(self) -> None:
        """Numbers everybody who waits, from 1 in each pool, in order of arrival."""
        last: dict[int, int] = defaultdict(int)
        self.positions = {}
        for claim_id in sorted(self.claims):
            claim = self.claims[claim_id]
            if claim.status is ClaimStatus.WAITING:
                last[claim.pool_id] += 1
                self.positions[claim_id] = last[claim.pool_id]

    def _count_pools(self) -> dict[int, PoolCount]:
        statuses = Counter((vm.pool_id, vm.status) for vm in self.vms.values())
        machines = Counter(vm.pool_id for vm in self.vms.values())
        line = Counter(self.claims[claim_id].pool_id for claim_id in self.positions)
        return {
            pool_id: PoolCount(
                machines[pool_id],
                statuses[pool_id, VmStatus.AVAILABLE],
                statuses[pool_id, VmStatus.IN_USE],
                line[pool_id],
            )
            for pool_id in machines.keys() | line.keys()
        }


def merge(held: dict[int, View], read: Mapping[int, View], asked: Iterable[int] | None) -> Changes[View]:
    """Brings ``held`` up to what was ``read`` about the ids ``asked`` for (None: about all). Returns the difference."""
    upserts = tuple(view for key, view in read.items() if held.get(key) != view)
    gone = tuple(key for key in (held if asked is None else asked) if key in held and key not in read)
    held.update(read)
    for key in gone:
        del held[key]
    return Changes(upserts, gone)
