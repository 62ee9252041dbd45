"""The arrivals of a class, replayed: in a pool of their own, whose machines and people are simulated and go with it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import (
    ApiToken,
    Claim,
    Command,
    Enrolment,
    Event,
    HealthAverage,
    HealthSample,
    Operation,
    Pool,
    Rehearsal,
    RehearsalMachine,
    Vm,
)
from backend.services.moves import record_event
from backend.services.rehearsal_robots import RULE
from backend.services.rehearsal_verdict import NOT_REPLAYED, NOT_WANTED, REPLAYED
from backend.services.tokens import hash_token, new_token
from backend.states import RehearsalStatus, Role

WANTED, RUNNING = "wanted", "running"
PREFIX = "rehearsal-"
# What is kept of a report: figures, and why it failed.
FIGURES = ("agents", "people", "errors", "refused_429", "doubles", "seated", "in_line")
_TIMES = ("p50", "p95", "p99")
MAX_REASONS, MAX_REASON = 10, 300
# A pool's name can be typed where a join code is asked for: nobody shall guess it.
_NAME_BYTES = 8
_TOKEN_LIVES = timedelta(hours=3)


@dataclass(frozen=True, slots=True)
class Replay:
    """What is to be replayed: so many people within so many seconds, so many machines, and a token that may do it."""

    rehearsal_id: int
    pool: str
    people: int
    agents: int
    within_s: int
    token: str


async def find_due_replay(db: Database) -> int | None:
    """The first rehearsal whose machines are done and whose arrivals are to be replayed, or were when a server died."""
    is_rehearsed = ~(
        select(RehearsalMachine.id)
        .where(RehearsalMachine.rehearsal_id == Rehearsal.id, RehearsalMachine.ended_at.is_(None))
        .exists()
    )
    query = select(Rehearsal.id).where(
        Rehearsal.status == RehearsalStatus.RUNNING,
        Rehearsal.arrivals["state"].as_string().in_((WANTED, RUNNING)),
        is_rehearsed,
    )
    async with db.transaction() as session:
        found: int | None = await session.scalar(query.order_by(Rehearsal.id).limit(1))
    return found


async def begin_replay(db: Database, rehearsal_id: int, *, most_s: int) -> Replay | None:
    """Makes the pool and the token of a replay. None where it is not wanted any more.

    What takes longer than ``most_s`` seconds is pressed into them: more at once than there will be.
    """
    async with db.transaction() as session:
        rehearsal = await session.get_one(Rehearsal, rehearsal_id, with_for_update=True)
        if rehearsal.status != RehearsalStatus.RUNNING or rehearsal.arrivals["state"] not in {WANTED, RUNNING}:
            return None
        original = await session.get_one(Pool, rehearsal.pool_id)
        pool = _pool_like(original, min(rehearsal.people, original.max), db)
        session.add(pool)
        token = new_token()
        session.add(_token(pool.name, token, db))
        within_s = max(1, min(rehearsal.over_s, most_s))
        agents = pool.max
        figures = {"people": rehearsal.people, "agents": agents, "within_s": within_s}
        rehearsal.arrivals = {"state": RUNNING, "pool": pool.name, **figures}
        await session.flush()
        message = f"{rehearsal.people} simulated people come to {agents} simulated machines in pool {pool.name}"
        record_event(session, "rehearsal.replay", message, actor=RULE, at=db.now(), pool_id=rehearsal.pool_id)
        return Replay(rehearsal_id, pool.name, rehearsal.people, agents, within_s, token)


async def record_replay(db: Database, replay: Replay, report: Mapping[str, Any] | None, *, why: str = "") -> None:
    """Keeps what came of a replay: its report, or why there is none. What was simulated goes."""
    async with db.transaction() as session:
        rehearsal = await session.get(Rehearsal, replay.rehearsal_id, with_for_update=True)
        if rehearsal is not None and rehearsal.arrivals.get("pool") == replay.pool:
            outcome = {"state": REPLAYED, **_read(report)} if report else {"state": NOT_REPLAYED, "reasons": [why]}
            rehearsal.arrivals = {**rehearsal.arrivals, **outcome}
    await remove_rehearsal_pools(db)


async def leave_replay_out(db: Database, rehearsal_id: int, *, why: str) -> None:
    """The arrivals cannot be replayed here, whatever is tried; that is no fault of the class."""
    async with db.transaction() as session:
        rehearsal = await session.get_one(Rehearsal, rehearsal_id, with_for_update=True)
        rehearsal.arrivals = {"state": NOT_WANTED, "reasons": [why]}


async def remove_rehearsal_pools(db: Database) -> int:
    """Removes every pool of a replay, with all that was simulated in it: none is under way. Returns how many."""
    query = select(Pool.id, Pool.name).where(Pool.is_rehearsal).order_by(Pool.id)
    async with db.transaction() as session:
        pools = (await session.execute(query)).all()
    for pool_id, name in pools:
        async with db.transaction() as session:
            await _remove(session, pool_id)
            ended = update(ApiToken).where(ApiToken.name == name, ApiToken.revoked_at.is_(None))
            await session.execute(ended.values(revoked_at=db.now()))
    return len(pools)


async def _remove(session: AsyncSession, pool_id: int) -> None:
    vms = select(Vm.id).where(Vm.pool_id == pool_id)
    # VM before claim before command, as everywhere.
    await session.execute(vms.order_by(Vm.id).with_for_update())
    await session.execute(select(Claim.id).where(Claim.pool_id == pool_id).order_by(Claim.id).with_for_update())
    for table in (HealthSample, HealthAverage, Command):
        await session.execute(delete(table).where(table.vm_id.in_(vms)))
    for owned in (Claim, Enrolment, Operation, Vm, Event):
        await session.execute(delete(owned).where(owned.pool_id == pool_id))
    await session.execute(delete(Pool).where(Pool.id == pool_id))


def _pool_like(original: Pool, most: int, db: Database) -> Pool:
    """Open to whoever knows its name, which nobody is told; it offers what the original does, and costs nothing."""
    return Pool(
        name=f"{PREFIX}{secrets.token_hex(_NAME_BYTES)}",
        provider="local",
        max=most,
        is_rehearsal=True,
        cleaning_deadline_s=original.cleaning_deadline_s,
        created_at=db.now(),
        updated_at=db.now(),
    )


def _token(name: str, token: str, db: Database) -> ApiToken:
    """Its end is the pool's; should nobody remove that, a few hours."""
    return ApiToken(
        name=name, token_hash=hash_token(token), role=Role.ADMIN, created_by=RULE.name, created_at=db.now(),
        expires_at=db.now() + _TOKEN_LIVES,
    )  # fmt: skip


def _read(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of another program's report, what is known and fits."""
    figures = {name: report[name] for name in FIGURES if isinstance(report.get(name), int)}
    times = report.get("join_to_seat_ms")
    shown = {name: _number(times.get(name)) for name in _TIMES} if isinstance(times, Mapping) else {}
    reasons = report.get("reasons")
    told: Sequence[object] = reasons if isinstance(reasons, list) else []
    verdict = "ok" if report.get("verdict") == "ok" else "failed"
    return {
        **figures,
        "join_to_seat_ms": shown,
        "verdict": verdict,
        "reasons": [str(each)[:MAX_REASON] for each in told[:MAX_REASONS]],
    }


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return round(float(value), 1) if is_number else None  # type: ignore[arg-type]
