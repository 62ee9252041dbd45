"""What a class needs: how many machines, and until when the missing ones must be launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.errors import InvalidInput
from backend.models import Pool, ScheduleRun, Vm
from backend.services.fuses import find_fuse
from backend.services.lead_times import BootTimes, measure_boots
from backend.services.past_classes import PastClass, measure_last_class
from backend.services.recurrence import find_zone
from backend.states import PoolStatus, RunStatus, VmStatus

MAX_PEOPLE, MAX_OVER_S, MAX_AHEAD = 2_000, 86_400, timedelta(days=60)
# A machine that was silent or unwell a moment ago is up all the same: what it is worth, the rehearsal says.
UP = (VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING)
COMING = (VmStatus.PROVISIONING, VmStatus.BOOTING)


@dataclass(frozen=True, slots=True)
class Expected:
    """Who is expected: so many people, the first as the class starts, the last ``over_s`` seconds later.

    ``zone``: by whose clocks times are told.
    """

    people: int
    over_s: int
    starts_at: datetime
    zone: str = "UTC"

    def arrival_of(self, number: int) -> datetime:
        """When this person comes, counted from 1."""
        return self.starts_at + timedelta(seconds=self.over_s * (number - 1) / self.people)

    def check(self, now: datetime) -> None:
        """Refuses what no class is.

        Raises:
            InvalidInput: a figure is out of range.
        """
        find_zone(self.zone)
        limits: list[tuple[bool, str]] = [
            (1 <= self.people <= MAX_PEOPLE, f"The number of people is from 1 to {MAX_PEOPLE:,}"),
            (0 <= self.over_s <= MAX_OVER_S, "People arrive over 0 minutes to a day"),
            (self.starts_at.tzinfo is not None, "The start of a class has a time zone, such as 2027-01-11T09:00+01:00"),
        ]
        for holds, sentence in limits:
            if not holds:
                raise InvalidInput(sentence + ".", code="invalid_rehearsal")
        if not now - timedelta(hours=1) <= self.starts_at <= now + MAX_AHEAD:
            raise InvalidInput("A class that is rehearsed starts within the next 60 days.", code="invalid_rehearsal")


@dataclass(frozen=True, slots=True)
class Need:
    """Machines: ``needed``, ``up``, ``coming``, the pool's ``most``, and how many are ``to_launch``.

    ``short_at`` is when the first person would find none, ``launch_at`` until when the missing ones must be launched;
    ``obstacle`` what keeps people out, or machines from being launched; ``last_class`` how many came to the last one.
    """

    needed: int
    up: int
    coming: int
    most: int
    to_launch: int
    boots: BootTimes
    short_at: datetime | None = None
    launch_at: datetime | None = None
    obstacle: str | None = None
    last_class: PastClass | None = None

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        times = {name: at.isoformat() if at else None for name, at in self._times.items()}
        return {**asdict(self), **times}

    @property
    def _times(self) -> dict[str, datetime | None]:
        return {"short_at": self.short_at, "launch_at": self.launch_at}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Need:
        """What was kept."""
        times = {name: datetime.fromisoformat(kept[name]) if kept[name] else None for name in ("short_at", "launch_at")}
        last = PastClass(**kept["last_class"]) if kept.get("last_class") else None
        return cls(**{**kept, **times, "boots": BootTimes(**kept["boots"]), "last_class": last})


def plan(expected: Expected, up: int, coming: int, most: int, boots: BootTimes, obstacle: str | None = None) -> Need:
    """A machine for each person; those that are missing are launched before the first person finds none."""
    have = up + coming
    to_launch = max(0, min(expected.people, most) - have)
    short_at = expected.arrival_of(have + 1) if have < expected.people else None
    launch_at = short_at - timedelta(seconds=boots.lead_s) if short_at and to_launch else None
    return Need(expected.people, up, coming, most, to_launch, boots, short_at, launch_at, obstacle)


async def find_need(session: AsyncSession, pool: Pool, expected: Expected, *, default_lead_s: int) -> Need:
    """What the pool needs, as it stands now."""
    up, coming = (func.count().filter(Vm.status.in_(statuses)) for statuses in (UP, COMING))
    counts = (await session.execute(select(up, coming).where(Vm.pool_id == pool.id))).one()
    boots = await measure_boots(session, pool.id, default_s=default_lead_s)
    obstacle = await _find_obstacle(session, pool, expected.starts_at)
    need = plan(expected, *counts, most=pool.max, boots=boots, obstacle=obstacle)
    return replace(need, last_class=await measure_last_class(session, pool.id))


async def _find_obstacle(session: AsyncSession, pool: Pool, at: datetime) -> str | None:
    if pool.status == PoolStatus.OPEN:
        return await find_fuse(session, pool)
    opens = select(ScheduleRun.id).where(
        ScheduleRun.pool_id == pool.id, ScheduleRun.status == RunStatus.PLANNED, ScheduleRun.starts_at <= at
    )
    if await session.scalar(opens.limit(1)) is not None:
        return await find_fuse(session, pool)
    return f"The pool {pool.name} is closed, and no class of its schedules opens it by then."
