"""The read model: one picture in memory that notices keep true, shared by every open page of this process.

Notices carry ids only. They gather in dirty sets; a tick reads all dirty rows of a table in one SELECT, updates the
snapshot and hands one change set to every subscriber: to pages a few at a time, and those of researchers first, so
that nobody who comes in or claims waits until hundreds are told.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from enum import IntEnum

from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener
from backend.errors import Unavailable
from backend.live.changes import Changes, ChangeSet, Snapshot, View, merge
from backend.services.alarms import list_open_alarms
from backend.services.claims import list_claims
from backend.services.operations import list_operations
from backend.services.pools import list_pools
from backend.services.views import ClaimView, OperationView, VmView
from backend.services.vms import list_vms
from backend.states import GONE_VM, OPEN_CLAIM

# Measured: what one core sends without falling behind. So many pages draw something, or sixteen times as many need not,
# before all others have their turn.
PAGE_UPDATES_PER_S, TOLD_AT_ONCE, NOT_DRAWN = 1_500, 16, 1 / 16
RETRY_S = 0.5
RECENT_OPERATIONS = 100

# Tables whose changes pages hear of though no snapshot holds their rows.
_NOT_HELD = (
    "join_codes",
    "roster_entries",
    "seat_browsers",
    "terminals",
    "terminal_watches",
    "users",
    "invites",
    "api_tokens",
    "admin_sessions",
    "findings",
    "schedules",
    "schedule_runs",
    "budgets",
    "repairs",
    "healing_breakers",
    "rehearsals",
    "rehearsal_machines",
)


class Audience(IntEnum):
    """Who is told, in this order."""

    HOUSE = 0
    RESEARCHERS = 1
    ADMINS = 2


# Returns whether it has something to send.
Subscriber = Callable[[ChangeSet], object]
logger = logging.getLogger(__name__)


class ReadModel:
    """Owns the snapshot. ``run`` is its one task."""

    def __init__(
        self, db: Database, listener: NoticeListener, *, max_hz: float = 20, backup_poll_s: float = 15
    ) -> None:
        self.snapshot = Snapshot()
        self._db = db
        self._listener = listener
        self._max_hz = max_hz
        self._backup_poll_s = backup_poll_s
        self._subscribers: dict[Subscriber, Audience] = {}
        self._dirty: dict[str, set[int]] = defaultdict(set)
        self._parents: dict[str, set[int]] = defaultdict(set)
        self._everything = True
        self._news = asyncio.Event()
        listener.subscribe(self._note, on_gap=self._note_gap, on_lost=self._note_loss)

    def subscribe(self, subscriber: Subscriber, audience: Audience = Audience.HOUSE) -> Callable[[], None]:
        """Calls ``subscriber`` (which must not block) with each change set. Returns what ends it."""
        self._subscribers[subscriber] = audience

        def end() -> None:
            self._subscribers.pop(subscriber, None)

        return end

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return sum(audience is not Audience.HOUSE for audience in self._subscribers.values())

    async def run(self) -> None:
        """Keeps the snapshot true until cancelled. While Postgres is away it stays as it was, marked as not live."""
        while True:
            try:
                async with asyncio.timeout(self._backup_poll_s):
                    await self._news.wait()
            except TimeoutError:
                # A notice may have been lost; heartbeats, which send none, are read here as well.
                self._everything = True
            rested_s = 0.0
            try:
                rested_s = await self._tick()
            except Unavailable:
                self._note_loss()
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(max(0.0, 1 / self._max_hz - rested_s))

    async def refresh(self) -> None:
        """Reads everything now, in the caller's time: for the start.

        Raises:
            Unavailable: Postgres does not answer.
        """
        self._everything = True
        await self._tick()

    async def _tick(self) -> float:
        """Returns for how long (seconds) it has left the time to others while pages were told."""
        self._news.clear()
        everything, self._everything = self._everything, False
        dirty, self._dirty = self._dirty, defaultdict(set)
        parents, self._parents = self._parents, defaultdict(set)
        try:
            changes = await self._read(dirty, parents, everything=everything)
        except BaseException:
            # What was to be read is forgotten by now: everything is read instead, without waiting for more news.
            self._everything = True
            self._news.set()
            raise
        if changes.claims:
            self.snapshot.count_line()
        became_live = self._listener.connected and not self.snapshot.is_live
        if changes or became_live:
            self.snapshot.seq += 1
            self.snapshot.is_live = self._listener.connected
            return await self._tell(changes)
        return 0.0

    async def _read(self, dirty: dict[str, set[int]], parents: dict[str, set[int]], *, everything: bool) -> ChangeSet:
        held, db = self.snapshot, self._db

        async def update(
            table: str, kept: dict[int, View], read: Callable[[Collection[int] | None], Awaitable[list[View]]]
        ) -> Callable[[], Changes[View]]:
            ids = None if everything else dirty.get(table, set())
            if ids is not None and not ids:
                return Changes
            views = {view.id: view for view in await read(ids)}  # type: ignore[attr-defined]
            return lambda: merge(kept, views, ids)

        dirty["operations"] |= dirty.get("operation_vms", set())
        # All is read before anything is merged: a difference that was merged but not told would never be told.
        pools = await update("pools", held.pools, lambda ids: list_pools(db, ids))
        vms = await update("vms", held.vms, lambda ids: _list_living(db, ids))
        claims = await update("claims", held.claims, lambda ids: _list_open(db, ids))
        operations = await update("operations", held.operations, lambda ids: _list_recent(db, ids))
        alarms = await update("alarms", held.alarms, lambda ids: list_open_alarms(db, ids))
        return ChangeSet(
            seq=held.seq + 1,
            pools=pools(),
            vms=vms(),
            claims=claims(),
            operations=operations(),
            alarms=alarms(),
            eventful_vms=frozenset(held.vms) if everything else frozenset(parents.get("events", ())),
            logged_vms=frozenset(held.vms) if everything else frozenset(dirty.get("vm_logs", ())),
            logged_operations=frozenset(held.operations) if everything else frozenset(dirty.get("operation_logs", ())),
            has_events=everything or "events" in dirty,
            has_sessions=everything or "admin_sessions" in dirty,
            touched={table: frozenset(parents[table]) for table in _NOT_HELD if table in dirty},
            is_whole=everything,
        )

    async def _tell(self, changes: ChangeSet) -> float:
        load, rested_s = 0.0, 0.0
        for subscriber in sorted(self._subscribers, key=self._subscribers.__getitem__):
            load += 1 if self._call(subscriber, changes) else NOT_DRAWN
            if load >= TOLD_AT_ONCE:
                rest_s = load / PAGE_UPDATES_PER_S
                await asyncio.sleep(rest_s)
                load, rested_s = 0.0, rested_s + rest_s
        return rested_s

    def _call(self, subscriber: Subscriber, changes: ChangeSet) -> bool:
        # Meanwhile it may have gone.
        if subscriber not in self._subscribers:
            return False
        try:
            return bool(subscriber(changes))
        except Exception:
            # One broken page must not keep the truth from the others.
            logger.exception("a subscriber of the read model failed")
            return False

    def _note(self, notice: Notice) -> None:
        self._dirty[notice.table].update(notice.ids)
        self._parents[notice.table].update(notice.parents)
        self._news.set()

    def _note_gap(self) -> None:
        self._everything = True
        self._news.set()

    def _note_loss(self) -> None:
        if self.snapshot.is_live:
            self.snapshot.is_live = False
            self.snapshot.seq += 1
            changes = ChangeSet(seq=self.snapshot.seq)
            for subscriber in tuple(self._subscribers):
                self._call(subscriber, changes)


async def _list_living(db: Database, ids: Collection[int] | None) -> list[VmView]:
    return [vm for vm in await list_vms(db, ids=ids) if vm.status not in GONE_VM]


async def _list_open(db: Database, ids: Collection[int] | None) -> list[ClaimView]:
    if ids is None:
        return await list_claims(db, only_open=True)
    return [claim for claim in await list_claims(db, ids=ids) if claim.status in OPEN_CLAIM]


async def _list_recent(db: Database, ids: Collection[int] | None) -> list[OperationView]:
    return await list_operations(db, ids=ids, limit=RECENT_OPERATIONS)
