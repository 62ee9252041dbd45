"""VMs: look them up, act on them, and hold them to the rules of time."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from backend.db.engine import Database
from backend.db.jobs import RUN_POWER_ACTION, defer
from backend.errors import Conflict, NotFound
from backend.models import LatestHeartbeat, Pool, Vm
from backend.pauses import AT_ONCE
from backend.services.actor import Actor
from backend.services.command_queue import queue_command
from backend.services.commands import cancel_open_commands
from backend.services.healing_marks import KEPT_FOR
from backend.services.heartbeats import INTERRUPTION
from backend.services.moves import move_vm, record_event
from backend.services.sessions import DRAINED_BY, UNCLEAN, renew_end_session
from backend.services.views import VmView
from backend.services.vm_conditions import list_conditions
from backend.states import GONE_VM, CommandKind, Health, Origin, VmStatus

REBOOT_DEADLINE_S = 120
RESTART_DEADLINE_S = 7_200
# facts[…] that are over once a VM is mended.
_ILL = {"failed_by", KEPT_FOR}
_NEVER_SILENT = {VmStatus.PROVISIONING, VmStatus.DESTROYING, VmStatus.DESTROYED}


async def list_vms(
    db: Database, *, ids: Collection[int] | None = None, pool: str | None = None, limit: int | None = None
) -> list[VmView]:
    """VMs by hostname: those of ``ids``, of a pool, or all; without the destroyed ones unless asked for by id."""
    query = _query().order_by(Vm.hostname)
    query = query.where(Vm.id.in_(ids)) if ids is not None else query.where(Vm.status.not_in(GONE_VM))
    if pool is not None:
        query = query.where(Pool.name == pool)
    if limit is not None:
        query = query.limit(limit)
    async with db.transaction() as session:
        if ids is not None and len(ids) <= AT_ONCE:
            return [_view_of(*row) for row in await session.execute(query)]
        # Many in one go would hold up everybody: 40 ms for 500.
        rows = await session.stream(query, execution_options={"yield_per": AT_ONCE})
        return [_view_of(*row) async for part in rows.partitions() for row in part]


async def get_vm(db: Database, hostname: str) -> VmView:
    """The VM of this name; of several that bore it, the living or else the latest.

    Raises:
        NotFound: no VM ever had this name.
    """
    query = _query().where(Vm.hostname == hostname).order_by(Vm.id.desc()).limit(1)
    async with db.transaction() as session:
        row = (await session.execute(query)).first()
        if row is None:
            raise NotFound(f"There is no machine named '{hostname[:80]}'.", code="unknown_vm")
        return _view_of(*row)


async def get_vm_by_id(db: Database, vm_id: int) -> VmView:
    """One VM, living or gone.

    Raises:
        NotFound: no such VM.
    """
    found = await list_vms(db, ids=[vm_id])
    if not found:
        raise NotFound("There is no such machine.", code="unknown_vm")
    return found[0]


async def get_named(db: Database, hostname: str, vm_id: int | None) -> VmView:
    """The VM of this name; of several that bore it the one with this id, if there is one given.

    Raises:
        NotFound: there is none.
    """
    if vm_id is None or not 0 < vm_id < 2**31:
        return await get_vm(db, hostname)
    vm = await get_vm_by_id(db, vm_id)
    if vm.hostname != hostname:
        raise NotFound(f"Machine {vm_id} has another name.", code="unknown_vm")
    return vm


async def list_terraform_hostnames(db: Database, provider: str) -> list[str]:
    """The living VMs that Terraform made with this provider."""
    query = (
        select(Vm.hostname)
        .join(Pool)
        .where(Pool.provider == provider, Vm.origin == Origin.TERRAFORM, Vm.status.not_in(GONE_VM))
    )
    async with db.transaction() as session:
        return list(await session.scalars(query))


async def record_boot_failure(db: Database, vm_id: int, reason: str) -> None:
    """Fails a VM that could not be booted; one in use keeps its seat, and the reason goes into the history."""
    async with db.transaction() as session:
        vm = await session.get_one(Vm, vm_id, with_for_update=True)
        if vm.status == VmStatus.BOOTING:
            move_vm(session, vm, VmStatus.FAILED, actor=Actor.rule("reboot"), at=db.now(), reason=reason)
        else:
            message = f"{vm.hostname} {reason}"
            actor = Actor.rule("reboot")
            record_event(session, "vm.boot_failed", message, actor=actor, at=db.now(), pool_id=vm.pool_id, vm_id=vm.id)


async def request_reboot(db: Database, hostnames: Collection[str], *, actor: Actor) -> list[str]:
    """Boots these VMs again. A claimed VM keeps its seat. Returns the hostnames that were told.

    Raises:
        NotFound: a name is unknown.
        Conflict: none of them can be rebooted now.
    """
    actor.must_operate()
    return await _request_boot(db, hostnames, "reboot", actor=actor)


async def request_repair(db: Database, hostnames: Collection[str], *, actor: Actor) -> list[str]:
    """Brings failed, quarantined or silent VMs back by booting them again. Returns the hostnames that were told.

    Raises:
        NotFound: a name is unknown.
        Conflict: none of them needs repair.
    """
    actor.must_operate()
    return await _request_boot(db, hostnames, "repair", actor=actor)


async def record_silence(db: Database, *, after_s: float) -> int:
    """Marks VMs unreachable whose last heartbeat is older than ``after_s``. Returns how many were newly so."""
    limit = db.now() - timedelta(seconds=after_s)
    silent = (
        select(Vm, LatestHeartbeat.at)
        .select_from(Vm)
        .join(LatestHeartbeat, LatestHeartbeat.vm_id == Vm.id)
        .where(Vm.status.not_in(_NEVER_SILENT), Vm.unreachable_since.is_(None), LatestHeartbeat.at < limit)
        .order_by(Vm.id)
        .with_for_update(of=Vm)
    )
    async with db.transaction() as session:
        rows = (await session.execute(silent)).all()
        for vm, last_at in rows:
            vm.unreachable_since, vm.updated_at = last_at, db.now()
            message = f"{vm.hostname} has been silent since {last_at:%H:%M:%S} UTC"
            actor = Actor.rule("silence")
            record_event(session, "vm.unreachable", message, actor=actor, at=db.now(), pool_id=vm.pool_id, vm_id=vm.id)
        return len(rows)


async def fail_overdue_vms(db: Database) -> int:
    """Fails VMs that boot longer than their pool allows, and unclaimed ones silent beyond its grace.

    A claimed VM is never failed by silence alone: its researcher may still be working on it.
    """
    failed = 0
    async with db.transaction() as session:
        query = (
            select(Vm, Pool).select_from(Vm).join(Pool, Pool.id == Vm.pool_id).order_by(Vm.id).with_for_update(of=Vm)
        )
        booting = query.where(
            Vm.status == VmStatus.BOOTING, _is_past(Vm.status_changed_at, Pool.boot_deadline_s, db.now())
        )
        for vm, pool in await session.execute(booting):
            heard = "its agent never reported" if vm.first_heartbeat_at is None else "its agent never became ready"
            known = f" ({'; '.join(vm.health_reasons)})" if vm.health_reasons else ""
            why = f"not ready {pool.boot_deadline_s} s after it began to boot: {heard}{known}"
            _fail(session, db, vm, "boot_deadline", why)
            failed += 1
        silent = query.where(
            Vm.status == VmStatus.AVAILABLE, _is_past(Vm.unreachable_since, Pool.unreachable_grace_s, db.now())
        )
        for vm, pool in await session.execute(silent):
            _fail(session, db, vm, "silence", f"silent for more than {pool.unreachable_grace_s} s")
            failed += 1
    return failed


def _is_past(
    moment: InstrumentedAttribute[Any], seconds: InstrumentedAttribute[int], at: datetime
) -> ColumnElement[bool]:
    """Whether ``at`` is more than so many seconds after a moment. The database judges: few rows need to come here."""
    return moment + seconds * literal(timedelta(seconds=1)) < at


async def lock_vms(session: AsyncSession, hostnames: Collection[str]) -> Sequence[Vm]:
    """The living VMs of these names, locked in one order.

    Raises:
        NotFound: a name is unknown.
    """
    query = select(Vm).where(Vm.hostname.in_(hostnames), Vm.status.not_in(GONE_VM)).order_by(Vm.id).with_for_update()
    vms = (await session.scalars(query)).all()
    missing = sorted(set(hostnames) - {vm.hostname for vm in vms})
    if missing:
        raise NotFound(f"There is no machine named '{missing[0][:80]}'.", code="unknown_vm")
    return vms


def allowed_actions(status: VmStatus, *, unreachable: bool) -> tuple[str, ...]:
    """The verbs an admin may use on a VM now."""
    verbs = []
    if status is VmStatus.IN_USE:
        verbs.append("release")
    if status in {VmStatus.AVAILABLE, VmStatus.IN_USE}:
        verbs.append("reboot")
    if status in {VmStatus.FAILED, VmStatus.QUARANTINED} or (
        unreachable and status in {VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING}
    ):
        verbs.append("repair")
    if status not in {VmStatus.DESTROYING, VmStatus.DESTROYED}:
        verbs.append("destroy")
    return tuple(verbs)


async def _request_boot(db: Database, hostnames: Collection[str], verb: str, *, actor: Actor) -> list[str]:
    async with db.transaction() as session:
        vms = [
            vm
            for vm in await lock_vms(session, hostnames)
            if verb in allowed_actions(VmStatus(vm.status), unreachable=vm.unreachable_since is not None)
        ]
        if not vms:
            raise Conflict(f"None of these machines can be sent to {verb} now.", code=f"cannot_{verb}")
        for vm in vms:
            await boot_again(session, db, vm, verb, actor)
        return [vm.hostname for vm in vms]


async def boot_again(session: AsyncSession, db: Database, vm: Vm, verb: str, actor: Actor) -> None:
    """Has a locked VM boot again. One without a seat leaves its status, and what was kept on it is removed."""
    at = db.now()
    message = f"{verb.capitalize()} of {vm.hostname} was asked for"
    record_event(session, f"vm.{verb}", message, actor=actor, at=at, pool_id=vm.pool_id, vm_id=vm.id)
    if vm.status != VmStatus.IN_USE:
        move_vm(session, vm, VmStatus.BOOTING, actor=actor, at=at, reason=f"{verb} asked for")
        await cancel_open_commands(session, [vm.id], detail=f"{verb} asked for", db=db)
        await renew_end_session(session, vm, at=at)
    vm.facts = {key: value for key, value in vm.facts.items() if key not in _ILL} | {"awaiting_boot": True}
    if vm.origin == Origin.JOINED:
        queue_command(session, vm.id, CommandKind.REBOOT, at=db.now(), deadline_s=REBOOT_DEADLINE_S)
    else:
        await defer(session, RUN_POWER_ACTION, lock=f"vm:{vm.id}", vm_id=vm.id, action="reboot")


async def restart_workload(session: AsyncSession, db: Database, vm: Vm, actor: Actor) -> None:
    """Has the agent of a locked VM without a seat restart the workload; until it has, it is not offered."""
    at, why = db.now(), "restart of its workload"
    move_vm(session, vm, VmStatus.BOOTING, actor=actor, at=at, reason=why)
    await cancel_open_commands(session, [vm.id], detail=why, db=db)
    await renew_end_session(session, vm, at=at)
    vm.facts = {key: value for key, value in vm.facts.items() if key not in _ILL} | {"awaiting_boot": True}
    queue_command(session, vm.id, CommandKind.RESTART, at=db.now(), deadline_s=RESTART_DEADLINE_S)


def _fail(session: AsyncSession, db: Database, vm: Vm, rule: str, reason: str) -> None:
    vm.facts = {**vm.facts, "failed_by": rule}
    move_vm(session, vm, VmStatus.FAILED, actor=Actor.rule(rule), at=db.now(), reason=reason)


def _query() -> Select[Vm, Pool, LatestHeartbeat | None]:
    return (
        select(Vm, Pool, LatestHeartbeat)
        .select_from(Vm)
        .join(Pool, Pool.id == Vm.pool_id)
        .outerjoin(LatestHeartbeat, LatestHeartbeat.vm_id == Vm.id)
    )


def _view_of(vm: Vm, pool: Pool, beat: LatestHeartbeat | None) -> VmView:
    gpus: Sequence[dict[str, Any]] = beat.gpus if beat else ()
    status = VmStatus(vm.status)
    return VmView(
        id=vm.id,
        hostname=vm.hostname,
        pool_id=pool.id,
        pool=pool.name,
        provider=pool.provider if vm.origin == Origin.TERRAFORM else "joined",
        origin=Origin(vm.origin),
        status=status,
        reason=vm.reason,
        health=Health(vm.health) if vm.health else None,
        reasons=tuple(vm.health_reasons),
        unreachable_since=vm.unreachable_since,
        email=vm.email,
        boot_id=vm.boot_id,
        agent_version=vm.agent_version,
        isolation=vm.facts.get("isolation"),
        gpus=tuple(gpus),
        cpu_pct=beat.cpu_pct if beat else None,
        memory_pct=beat.memory_pct if beat else None,
        disk_free_pct=beat.disk_free_pct if beat else None,
        last_heartbeat_at=beat.at if beat else None,
        created_at=vm.created_at,
        status_changed_at=vm.status_changed_at,
        price_per_hour=float(vm.price_per_hour),
        actions=allowed_actions(status, unreachable=vm.unreachable_since is not None),
        interruption_at=datetime.fromisoformat(vm.facts[INTERRUPTION]) if INTERRUPTION in vm.facts else None,
        is_draining=DRAINED_BY in vm.facts,
        is_unclean=status is VmStatus.FAILED and vm.facts.get("failed_by") == UNCLEAN,
        kept_for=vm.facts.get(KEPT_FOR),
        conditions=list_conditions(vm),
    )
