"""Pools: make, edit, close, look up."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.models import Claim, Pool
from backend.services.actor import Actor
from backend.services.aws_spec import AwsSpec
from backend.services.healing_limits import OWN as HEALING
from backend.services.health_limits import OWN as HEALTH
from backend.services.local_terminals import RULE, is_local_terminal
from backend.services.moves import record_event
from backend.services.views import PoolView
from backend.states import HOLDING_CLAIM, Access, PoolStatus

MAX_VMS = 1_000
AWS = "aws"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What an admin says about a pool. ``price_per_hour`` in US dollars per VM; durations in seconds."""

    provider: str = "local"
    max: int = 100
    available_min: int = 0
    price_per_hour: float = 0.0
    boot_deadline_s: int = 900
    unreachable_grace_s: int = 600
    startup_script: str | None = None
    repository: str | None = None
    cleaning_script: str | None = None
    cleaning_deadline_s: int = 300
    check_command: str | None = None
    access: Access = Access.OPEN
    oidc_group: str | None = None
    terminal: bool = False
    crd: bool = False
    url_template: str | None = None
    claim_duration_s: int | None = None
    idle_limit_s: int | None = None
    # Only a pool of this provider keeps it.
    aws: AwsSpec = field(default_factory=AwsSpec)
    # Its own ``HealthLimits``, where they are not the server's.
    health: Mapping[str, float] = field(default_factory=dict)
    # Its own ``HealingLimits``, likewise.
    healing: Mapping[str, float] = field(default_factory=dict)
    providers: Collection[str] = field(default=("local",), compare=False)
    # Whether the server can be reached from this computer alone.
    is_loopback: bool = field(default=True, compare=False)


async def create_pool(db: Database, name: str, spec: PoolSpec, *, actor: Actor) -> PoolView:
    """Makes an open, empty pool.

    Raises:
        InvalidInput: the name or a figure is out of range.
        Conflict: a pool of this name exists.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool = await _insert(session, name, spec, db, actor)
        if pool is None:
            raise Conflict(f"A pool named '{name}' exists already.", code="pool_exists")
        return view_of(pool)


async def ensure_pool(db: Database, name: str, spec: PoolSpec, *, actor: Actor) -> PoolView:
    """Makes the pool unless one of this name exists; what exists is left as it is."""
    async with db.transaction() as session:
        await _insert(session, name, spec, db, actor)
        return view_of(await get_pool_row(session, name))


async def update_pool(db: Database, name: str, spec: PoolSpec, *, actor: Actor) -> PoolView:
    """Changes a pool's figures. Living VMs are not touched; the provider cannot change.

    Raises:
        NotFound: no such pool.
        InvalidInput: a figure is out of range, or the provider differs.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool = await get_pool_row(session, name, lock=True)
        if spec.provider != pool.provider:
            raise InvalidInput(f"The provider of pool '{name}' is {pool.provider} and cannot change; make a new pool.")
        _check(spec)
        if (pool.claim_duration_s, pool.idle_limit_s) != (spec.claim_duration_s, spec.idle_limit_s):
            await _restart_times(session, pool.id, spec, db.now())
        changed = _fill(pool, spec)
        if changed:
            pool.updated_at = db.now()
            message = f"Pool {name} was edited: {', '.join(changed)}"
            record_event(session, "pool.updated", message, actor=actor, at=db.now(), pool_id=pool.id)
        return view_of(pool)


async def set_pool_open(db: Database, name: str, *, is_open: bool, actor: Actor, is_loopback: bool = True) -> PoolView:
    """Opens or closes a pool. A closed one takes neither claims nor launches; what runs keeps running.

    Raises:
        NotFound: no such pool.
        InvalidInput: it would offer a terminal on local machines though the server does not listen on loopback alone.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool = await get_pool_row(session, name, lock=True)
        if is_open and not is_loopback and is_local_terminal(pool):
            raise InvalidInput(RULE.capitalize() + ".")
        status = PoolStatus.OPEN if is_open else PoolStatus.CLOSED
        if pool.status != status:
            pool.status, pool.updated_at = status, db.now()
            pool.closed_at = None if is_open else db.now()
            record_event(
                session, f"pool.{status}", f"Pool {name} is {status}", actor=actor, at=db.now(), pool_id=pool.id
            )
        return view_of(pool)


async def get_pool(db: Database, name: str) -> PoolView:
    """One pool by name.

    Raises:
        NotFound: no such pool.
    """
    async with db.transaction() as session:
        return view_of(await get_pool_row(session, name))


async def list_pools(db: Database, ids: Collection[int] | None = None) -> list[PoolView]:
    """All pools, or those of ``ids``, by name."""
    query = select(Pool).order_by(Pool.name)
    if ids is not None:
        query = query.where(Pool.id.in_(ids))
    async with db.transaction() as session:
        return [view_of(pool) for pool in await session.scalars(query)]


async def get_pool_row(session: AsyncSession, name: str, *, lock: bool = False) -> Pool:
    """The row, for services only.

    Raises:
        NotFound: no such pool.
    """
    query = select(Pool).where(Pool.name == name)
    pool = await session.scalar(query.with_for_update() if lock else query)
    if pool is None:
        raise NotFound(f"There is no pool named '{name[:80]}'.", code="unknown_pool")
    return pool


def check_open(pool: Pool) -> None:
    """Refuses a closed pool.

    Raises:
        Conflict: the pool is closed.
    """
    if pool.status != PoolStatus.OPEN:
        raise Conflict(f"The pool '{pool.name}' is closed.", code="pool_closed")


def view_of(pool: Pool) -> PoolView:
    """The picture of a row."""
    return PoolView(
        id=pool.id,
        name=pool.name,
        provider=pool.provider,
        status=PoolStatus(pool.status),
        max=pool.max,
        available_min=pool.available_min,
        price_per_hour=float(pool.price_per_hour),
        boot_deadline_s=pool.boot_deadline_s,
        unreachable_grace_s=pool.unreachable_grace_s,
        startup_script=pool.startup_script,
        repository=pool.repository,
        cleaning_script=pool.cleaning_script,
        cleaning_deadline_s=pool.cleaning_deadline_s,
        check_command=pool.check_command,
        is_rehearsal=pool.is_rehearsal,
        access=Access(pool.access),
        oidc_group=pool.oidc_group,
        terminal=pool.terminal,
        crd=pool.crd,
        url_template=pool.url_template,
        claim_duration_s=pool.claim_duration_s,
        idle_limit_s=pool.idle_limit_s,
        aws=AwsSpec.of(pool.aws),
        health=dict(pool.health),
        healing=dict(pool.healing),
        created_at=pool.created_at,
    )


async def _insert(session: AsyncSession, name: str, spec: PoolSpec, db: Database, actor: Actor) -> Pool | None:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            "A pool's name has 1 to 40 lower-case letters, digits and inner hyphens, such as 'genomics-1'."
        )
    _check(spec)
    at = db.now()
    row = insert(Pool).values(
        name=name, provider=spec.provider, max=spec.max, created_at=at, updated_at=at, **_figures(spec)
    )
    pool = await session.scalar(row.on_conflict_do_nothing(index_elements=["name"]).returning(Pool))
    if pool is not None:
        record_event(session, "pool.created", f"Pool {name} was made", actor=actor, at=at, pool_id=pool.id)
    return pool


async def _restart_times(session: AsyncSession, pool_id: int, spec: PoolSpec, at: datetime) -> None:
    """The time of seats that exist begins anew: nobody loses a seat by a rule that came later."""
    ends_at = at + timedelta(seconds=spec.claim_duration_s) if spec.claim_duration_s is not None else None
    await session.execute(
        update(Claim)
        .where(Claim.pool_id == pool_id, Claim.status.in_(HOLDING_CLAIM))
        .values(ends_at=ends_at, last_active_at=at, warned_at=None, warned_again_at=None)
    )


def _figures(spec: PoolSpec) -> dict[str, object]:
    return {
        "available_min": spec.available_min,
        "price_per_hour": Decimal(str(spec.price_per_hour)),
        "boot_deadline_s": spec.boot_deadline_s,
        "unreachable_grace_s": spec.unreachable_grace_s,
        "startup_script": spec.startup_script or None,
        "repository": spec.repository or None,
        "cleaning_script": spec.cleaning_script or None,
        "cleaning_deadline_s": spec.cleaning_deadline_s,
        "check_command": (spec.check_command or "").strip() or None,
        "access": spec.access,
        "oidc_group": spec.oidc_group or None,
        "terminal": spec.terminal,
        "crd": spec.crd,
        "url_template": spec.url_template or None,
        "claim_duration_s": spec.claim_duration_s,
        "idle_limit_s": spec.idle_limit_s,
        "health": dict(spec.health),
        "healing": dict(spec.healing),
        "aws": spec.aws.as_json() if spec.provider == AWS else {},
    }


def _fill(pool: Pool, spec: PoolSpec) -> list[str]:
    """Returns the names of what changed; a script's or a repository's text stays out of the history."""
    figures = {"max": spec.max, **_figures(spec)}
    changed = [column for column, value in figures.items() if getattr(pool, column) != value]
    for column in changed:
        setattr(pool, column, figures[column])
    return changed


def _check(spec: PoolSpec) -> None:
    limits: list[tuple[bool, str]] = [
        (spec.provider in spec.providers, f"provider must be one of: {', '.join(spec.providers)}"),
        (1 <= spec.max <= MAX_VMS, f"max must be from 1 to {MAX_VMS}"),
        (0 <= spec.available_min <= spec.max, "available_min must be from 0 to max"),
        (0 <= spec.price_per_hour < 1_000, "price_per_hour must be from 0 to 999 dollars"),
        (30 <= spec.boot_deadline_s <= 7_200, "boot_deadline_s must be from 30 to 7200 seconds"),
        (30 <= spec.unreachable_grace_s <= 86_400, "unreachable_grace_s must be from 30 to 86400 seconds"),
        (len(spec.startup_script or "") <= 8_000, "startup_script must be at most 8,000 characters"),
        (len(spec.cleaning_script or "") <= 8_000, "cleaning_script must be at most 8,000 characters"),
        (30 <= spec.cleaning_deadline_s <= 7_200, "cleaning_deadline_s must be from 30 to 7200 seconds"),
        (_is_command(spec.check_command), "check_command must be one command of at most 2,000 printable characters"),
        (_is_repository(spec.repository), "repository must be an https:// or git@ address without spaces"),
        (_is_url_template(spec.url_template), "url_template must be an https:// address, with {hostname} and {email}"),
        (spec.is_loopback or not is_local_terminal(spec), RULE),
        (_is_duration(spec.claim_duration_s), "claim_duration_s must be from 60 seconds to a year, or nothing"),
        (_is_duration(spec.idle_limit_s), "idle_limit_s must be from 60 seconds to a year, or nothing"),
    ]
    for holds, sentence in limits:
        if not holds:
            raise InvalidInput(sentence + ".")
    HEALTH.check(spec.health)
    HEALING.check(spec.healing)
    if spec.provider == AWS:
        spec.aws.check()


def _is_command(command: str | None) -> bool:
    return len(command or "") <= 2_000 and all(each.isprintable() for each in (command or "").strip())


def _is_repository(address: str | None) -> bool:
    return not address or re.fullmatch(r"(https://|git@|file://)[^\s'\"`$;|&<>\\]{1,500}", address) is not None


def _is_url_template(template: str | None) -> bool:
    if not template:
        return True
    names = set(re.findall(r"{([^}]*)}", template))
    return names <= {"hostname", "email"} and re.fullmatch(r"https?://[^\s'\"`<>\\]{1,500}", template) is not None


def _is_duration(seconds: int | None) -> bool:
    return seconds is None or 60 <= seconds <= 31_536_000


def spec_of(view: PoolView) -> PoolSpec:
    """The figures of an existing pool, as the start of an edit."""
    names = {each.name for each in fields(PoolSpec)} - {"providers", "is_loopback"}
    return replace(PoolSpec(), **{name: getattr(view, name) for name in names})
