"""Findings: where database, state and cloud disagree; stored while they do, and mended only when somebody says so."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, NotFound
from backend.models import Finding, Operation, Pool, Vm
from backend.services.actor import Actor
from backend.services.commands import cancel_open_commands
from backend.services.enrolments import revoke_agents
from backend.services.healing_marks import REPLACE_ONLY
from backend.services.moves import move_claim, move_vm, record_event
from backend.services.pools import view_of
from backend.services.prices import find_price
from backend.services.rescues import move_on
from backend.services.sessions import list_held
from backend.services.terminal_ends import end_terminals_of_claim
from backend.services.views import PoolView
from backend.services.vms import lock_vms
from backend.states import GONE_VM, OPEN_OPERATION, ClaimStatus, FindingKind, Mend, Origin, VmStatus

# What a VM may be called (terraform/aws/variables.tf).
HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_RULE = Actor.rule("reconcile")
_MENDS: Mapping[FindingKind, Mend | None] = {
    FindingKind.GONE: Mend.MARK_FAILED,
    FindingKind.STRANGER: Mend.ADOPT,
    FindingKind.TWIN: Mend.DESTROY,
    FindingKind.UNMANAGED: Mend.REBUILD,
    FindingKind.STATE_LOST: Mend.REBUILD,
    FindingKind.GHOST: Mend.REBUILD,
    FindingKind.STOPPED: Mend.START,
    FindingKind.CHANGED: Mend.REBUILD,
    FindingKind.DISOWNED: None,
}


@dataclass(frozen=True, slots=True)
class KnownVm:
    """A VM that Terraform made, as the database knows it."""

    hostname: str
    status: VmStatus


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What the database says of a pool. ``last_operation_id`` tells whether something began since it was read."""

    pool: PoolView
    vms: tuple[KnownVm, ...]
    last_operation_id: int
    is_busy: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A disagreement that was found just now. ``subject`` names it within its kind."""

    pool_id: int | None
    kind: FindingKind
    subject: str
    sentence: str
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FindingView:
    """A finding as people see it. ``mend``: what its button does; None where only the sentence can help."""

    id: int
    provider: str
    pool_id: int | None
    pool: str | None
    kind: FindingKind
    subject: str
    sentence: str
    mend: Mend | None
    machine_id: str | None
    hostname: str | None
    found_at: datetime


async def list_pool_facts(db: Database, provider: str) -> list[PoolFacts]:
    """Every pool of a provider with its VMs and whether an operation is open in it."""
    async with db.transaction() as session:
        pools = (await session.scalars(select(Pool).where(Pool.provider == provider).order_by(Pool.id))).all()
        ids = [pool.id for pool in pools]
        vms, operations = await _list_known(session, ids), await _list_operations(session, ids)
        return [PoolFacts(view_of(pool), tuple(vms[pool.id]), *operations[pool.id]) for pool in pools]


async def record_findings(
    db: Database, provider: str, found: Sequence[Found], *, looked_at: Collection[PoolFacts]
) -> None:
    """Stores what was found in the pools that were looked at; what is no more goes.

    A pool in which an operation began meanwhile is left as it is: what was seen of it may be half of the truth.
    """
    async with db.transaction() as session:
        operations = await _list_operations(session, [each.pool.id for each in looked_at])
        still = [each for each in looked_at if operations[each.pool.id] == (each.last_operation_id, False)]
        settled = {None, *(each.pool.id for each in still if not each.is_busy)}
        now = {(each.kind, each.subject): each for each in found if each.pool_id in settled}
        rows = (await session.scalars(select(Finding).where(Finding.provider == provider).with_for_update())).all()
        held = {(row.kind, row.subject): row for row in rows}
        for key, row in held.items():
            if row.pool_id in settled and key not in now:
                await session.delete(row)
        for key, each in now.items():
            if key in held:
                _refresh(held[key], each)
            else:
                _insert(session, db, provider, each)


async def list_findings(db: Database) -> list[FindingView]:
    """All there are, by pool and subject."""
    async with db.transaction() as session:
        query = _query().order_by(Pool.name, Finding.kind, Finding.subject)
        return [_view_of(*row) for row in await session.execute(query)]


async def find_finding(db: Database, kind: FindingKind, subject: str) -> FindingView | None:
    """The finding of this kind and subject, if it is still one."""
    async with db.transaction() as session:
        row = (await session.execute(_query().where(Finding.kind == kind, Finding.subject == subject))).first()
        return _view_of(*row) if row else None


async def get_finding(db: Database, finding_id: int) -> FindingView:
    """One finding.

    Raises:
        NotFound: it is none any more.
    """
    async with db.transaction() as session:
        row = (await session.execute(_query().where(Finding.id == finding_id))).first()
        if row is None:
            raise NotFound("This is settled already: there is no such finding any more.", code="unknown_finding")
        return _view_of(*row)


async def give_up_vm(db: Database, finding_id: int, *, actor: Actor) -> str:
    """Fails a VM whose machine is gone; the seat on it moves on. Returns its hostname.

    Raises:
        NotFound, Conflict: this is no such finding (any more).
    """
    actor.must_operate()
    async with db.transaction() as session:
        finding = await _lock(session, finding_id, FindingKind.GONE)
        (vm,) = await lock_vms(session, [finding.subject])
        why = "its machine is gone"
        pool = await session.get_one(Pool, vm.pool_id)
        for claim in await list_held(session, [vm.id]):
            what = f"the machine of {vm.hostname} is gone"
            if not await move_on(session, pool, claim, vm, what=what, actor=actor, at=db.now()):
                move_claim(session, claim, ClaimStatus.FAILED, actor=actor, at=db.now(), reason=why)
                await end_terminals_of_claim(session, claim, actor=actor, at=db.now())
        await cancel_open_commands(session, [vm.id], detail=why, db=db)
        vm.email = vm.crd_command = None
        # There is nothing that could boot again.
        vm.facts = {**vm.facts, REPLACE_ONLY: True}
        move_vm(session, vm, VmStatus.FAILED, actor=actor, at=db.now(), reason=why)
        await revoke_agents(session, [vm.id], at=db.now())
        await session.delete(finding)
        return vm.hostname


async def adopt_stranger(db: Database, finding_id: int, *, actor: Actor) -> str:
    """Makes a row for a machine that none knew: quarantined, so that nobody gets it unseen. Returns its hostname.

    Raises:
        NotFound, Conflict: this is no such finding (any more), or its name cannot be used.
    """
    actor.must_operate()
    async with db.transaction() as session:
        finding = await _lock(session, finding_id, FindingKind.STRANGER)
        pool = await session.get(Pool, finding.pool_id or 0, with_for_update=True)
        hostname = str(finding.facts.get("hostname", ""))
        taken = await session.scalar(select(Vm.id).where(Vm.hostname == hostname, Vm.status.not_in(GONE_VM)))
        if pool is None or taken is not None or not HOSTNAME.fullmatch(hostname):
            raise Conflict(f"{finding.subject} cannot be taken in under the name '{hostname}'.", code="cannot_adopt")
        _keep_number(pool, hostname)
        at, price = db.now(), await find_price(session, pool, finding.facts.get("kind"))
        vm = Vm(
            hostname=hostname,
            pool_id=pool.id,
            origin=Origin.TERRAFORM,
            status=VmStatus.QUARANTINED,
            reason=f"{finding.subject} was found on AWS, unknown here; look at it, then destroy it or keep it",
            price_per_hour=Decimal(str(price.per_hour)) if price else 0,
            status_changed_at=at,
            created_at=at,
            updated_at=at,
        )
        session.add(vm)
        await session.flush()
        message = f"{hostname} ({finding.subject}) was found and taken in, quarantined"
        record_event(session, "vm.quarantined", message, actor=actor, at=at, pool_id=pool.id, vm_id=vm.id)
        await session.delete(finding)
        return hostname


async def record_mended(db: Database, finding: FindingView, message: str, *, actor: Actor) -> None:
    """Writes down what was done about a finding beside the database."""
    actor.must_operate()
    async with db.transaction() as session:
        record_event(session, "pool.mended", message, actor=actor, at=db.now(), pool_id=finding.pool_id)


async def record_state_download(db: Database, pool: PoolView, name: str, *, actor: Actor) -> None:
    """Writes down that somebody takes a state away: it may hold secrets."""
    actor.must_administer()
    async with db.transaction() as session:
        message = f"Terraform's state of pool {pool.name} was downloaded ({name})"
        record_event(session, "pool.state_downloaded", message, actor=actor, at=db.now(), pool_id=pool.id)


async def _list_known(session: AsyncSession, pool_ids: Collection[int]) -> dict[int, list[KnownVm]]:
    rows = select(Vm.pool_id, Vm.hostname, Vm.status).where(
        Vm.pool_id.in_(pool_ids), Vm.origin == Origin.TERRAFORM, Vm.status.not_in(GONE_VM)
    )
    known: dict[int, list[KnownVm]] = defaultdict(list)
    for pool_id, hostname, status in await session.execute(rows):
        known[pool_id].append(KnownVm(hostname, VmStatus(status)))
    return known


async def _list_operations(session: AsyncSession, pool_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
    """The id of the last operation of each of these pools, and whether one is open in it."""
    is_open = func.bool_or(Operation.status.in_(OPEN_OPERATION))
    rows = select(Operation.pool_id, func.max(Operation.id), is_open).where(Operation.pool_id.in_(pool_ids))
    found = {pool_id: (last, busy) for pool_id, last, busy in await session.execute(rows.group_by(Operation.pool_id))}
    return {pool_id: found.get(pool_id, (0, False)) for pool_id in pool_ids}


def _insert(session: AsyncSession, db: Database, provider: str, each: Found) -> None:
    at = db.now()
    session.add(
        Finding(
            provider=provider,
            pool_id=each.pool_id,
            kind=each.kind,
            subject=each.subject,
            sentence=each.sentence,
            facts=dict(each.facts),
            found_at=at,
        )
    )
    record_event(session, "pool.finding", each.sentence, actor=_RULE, at=at, pool_id=each.pool_id)


def _refresh(row: Finding, each: Found) -> None:
    """Only what differs is written: each write is a notice to every page."""
    for name, value in (("sentence", each.sentence), ("facts", dict(each.facts)), ("pool_id", each.pool_id)):
        if getattr(row, name) != value:
            setattr(row, name, value)


async def _lock(session: AsyncSession, finding_id: int, kind: FindingKind) -> Finding:
    finding = await session.get(Finding, finding_id, with_for_update=True)
    if finding is None:
        raise NotFound("This is settled already: there is no such finding any more.", code="unknown_finding")
    if finding.kind != kind:
        raise Conflict("This finding is mended in another way.", code="wrong_mend")
    return finding


def _keep_number(pool: Pool, hostname: str) -> None:
    """A hostname is never given twice: numbers go on after this one."""
    prefix, _, number = hostname.rpartition("-")
    if prefix == pool.name and number.isdigit() and len(number) < 7:
        pool.next_number = max(pool.next_number, int(number) + 1)


def _query() -> Select[Finding, str | None]:
    return select(Finding, Pool.name).select_from(Finding).outerjoin(Pool, Pool.id == Finding.pool_id)


def _view_of(row: Finding, pool: str | None) -> FindingView:
    kind = FindingKind(row.kind)
    mend = Mend.DESTROY if kind is FindingKind.STRANGER and row.pool_id is None else _MENDS[kind]
    return FindingView(
        id=row.id,
        provider=row.provider,
        pool_id=row.pool_id,
        pool=pool,
        kind=kind,
        subject=row.subject,
        sentence=row.sentence,
        mend=mend,
        machine_id=row.facts.get("machine_id"),
        hostname=row.facts.get("hostname"),
        found_at=row.found_at,
    )
