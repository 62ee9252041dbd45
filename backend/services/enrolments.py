"""Enrolments: a single-use token becomes the agent token of one VM."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database, violated_constraint
from backend.db.express import Connection
from backend.errors import Conflict, InvalidInput, Revoked, Unauthenticated
from backend.models import Enrolment, Pool, Vm
from backend.models.base import quoted
from backend.services.actor import Actor
from backend.services.moves import move_vm, record_event
from backend.services.pools import check_open, get_pool_row
from backend.services.terminal_ends import end_terminals_of_vm
from backend.services.tokens import hash_token, new_token
from backend.states import GONE_VM, Origin, VmStatus

ENROLMENT_S = 24 * 3600
# What the names of simulated machines begin with.
SIMULATED = "swarm-"
HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NOT_ANY_MORE = "This agent token is unknown or was revoked."
_AGENTS = f"""
    SELECT agent_token_hash, revoked_at IS NULL AND status NOT IN ({quoted(GONE_VM)}), vms.id, hostname, enrolments.id
    FROM enrolments JOIN vms ON vms.id = enrolments.vm_id
    WHERE agent_token_hash = ANY(%(hashes)s)"""
_UNKNOWN = "This token is unknown, was used already or has expired."


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Which VM an agent token speaks for; nothing in a body can say otherwise."""

    vm_id: int
    hostname: str
    enrolment_id: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The answer to an announcement. ``agent_token`` is None when a boot was re-announced with the agent token."""

    agent_token: str | None
    hostname: str
    vm_id: int


async def create_enrolments(db: Database, pool_name: str, count: int, *, actor: Actor) -> list[str]:
    """Tokens for machines that join a pool by themselves, valid for a day, shown once.

    Raises:
        NotFound, Conflict: no such pool, or it is closed.
        InvalidInput: count is not from 1 to the pool's ``max``.
    """
    actor.must_administer()
    async with db.transaction() as session:
        pool = await get_pool_row(session, pool_name)
        check_open(pool)
        if not 1 <= count <= pool.max:
            raise InvalidInput(f"count must be from 1 to {pool.max}, the most VMs of pool '{pool_name}'.")
        tokens = [new_token() for _ in range(count)]
        for token in tokens:
            session.add(_row(db, pool.id, None, token, actor))
        record_event(
            session,
            "enrolment.created",
            f"{count} machines may join {pool_name}",
            actor=actor,
            at=db.now(),
            pool_id=pool.id,
        )
        return tokens


async def create_vm_enrolments(db: Database, vm_ids: Collection[int], *, actor: Actor) -> dict[int, str]:
    """A fresh enrolment token for each of these VMs. Earlier ones stay valid: a half-made machine may hold one."""
    async with db.transaction() as session:
        vms = (await session.scalars(select(Vm).where(Vm.id.in_(vm_ids)))).all()
        tokens = {vm.id: new_token() for vm in vms}
        for vm in vms:
            session.add(_row(db, vm.pool_id, vm.id, tokens[vm.id], actor))
        return tokens


async def announce_boot(
    db: Database, token: str, *, hostname: str, boot_id: str, agent_version: str, address: str | None = None
) -> Enrolled:
    """Enrols with an enrolment token, or re-announces a boot with an agent token.

    Raises:
        InvalidInput: the hostname is not a DNS label.
        Unauthenticated: the token is unknown, spent or expired.
        Conflict: the token is for another hostname, or a living VM has this hostname.
    """
    if not HOSTNAME.fullmatch(hostname):
        raise InvalidInput(
            "hostname must have 1 to 63 lower-case letters, digits and inner hyphens.", code="invalid_hostname"
        )
    try:
        async with db.transaction() as session:
            # Locked before what hangs on it, as whoever ends its seat does at the same moment.
            as_agent = await _find_by_agent_token(session, token, lock=True)
            if as_agent is not None:
                vm, _ = as_agent
                await _record_boot(session, db, vm, hostname, boot_id, agent_version, address)
                return Enrolled(None, vm.hostname, vm.id)
            return await _enrol(session, db, token, hostname, boot_id, agent_version, address)
    except IntegrityError as exc:
        if violated_constraint(exc) == "uq_vms_hostname":
            raise Conflict(f"A machine named '{hostname}' exists already.", code="hostname_taken") from exc
        raise


async def authenticate_agent(db: Database, token: str) -> AgentIdentity:
    """The VM behind an agent token.

    Raises:
        Unauthenticated: the token is unknown; ``Revoked``, if it was known once or its VM is gone.
    """
    found = await db.together(_find_agents, _AGENTS, hash_token(token))
    if found is None:
        raise Unauthenticated(_NOT_ANY_MORE)
    is_in_force, identity = found
    if not is_in_force:
        raise Revoked(_NOT_ANY_MORE)
    return identity


async def _find_agents(
    connection: Connection, query: str, hashes: list[bytes]
) -> list[tuple[bool, AgentIdentity] | None]:
    """Whom each of these tokens (hashed) speaks for, and whether it still may."""
    # After an outage all agents come at once.
    rows = await (await connection.execute(query, {"hashes": hashes})).fetchall()
    found = {token_hash: (is_in_force, AgentIdentity(*identity)) for token_hash, is_in_force, *identity in rows}
    return [found.get(token_hash) for token_hash in hashes]


async def authenticate_booting(db: Database, token: str) -> AgentIdentity:
    """The VM behind an agent token, or behind an enrolment token that was made for it and is not spent yet.

    Raises:
        Unauthenticated: the token is neither, or its VM is gone.
    """
    is_for_vm = (
        (Enrolment.token_hash == hash_token(token))
        & Enrolment.confirmed_at.is_(None)
        & (Enrolment.expires_at > db.now())
    )
    query = (
        select(Vm, Enrolment)
        .join(Enrolment, Enrolment.vm_id == Vm.id)
        .where(is_for_vm, Enrolment.revoked_at.is_(None), Vm.status.not_in(GONE_VM))
    )
    async with db.transaction() as session:
        found = await _find_by_agent_token(session, token) or (await session.execute(query)).first()
        if found is None:
            raise Unauthenticated("This token speaks for no machine.")
        vm, enrolment = found
        return AgentIdentity(vm.id, vm.hostname, enrolment.id)


async def revoke_agents(session: AsyncSession, vm_ids: Collection[int], *, at: datetime) -> None:
    """Ends the right of these VMs' agents to speak, and every enrolment token made for them."""
    await session.execute(
        update(Enrolment).where(Enrolment.vm_id.in_(vm_ids), Enrolment.revoked_at.is_(None)).values(revoked_at=at)
    )


async def _find_by_agent_token(session: AsyncSession, token: str, *, lock: bool = False) -> tuple[Vm, Enrolment] | None:
    query = (
        select(Vm, Enrolment)
        .join(Enrolment, Enrolment.vm_id == Vm.id)
        .where(
            Enrolment.agent_token_hash == hash_token(token), Enrolment.revoked_at.is_(None), Vm.status.not_in(GONE_VM)
        )
    )
    if lock:
        query = query.with_for_update(of=Vm)
    return (await session.execute(query)).first()


async def _enrol(
    session: AsyncSession,
    db: Database,
    token: str,
    hostname: str,
    boot_id: str,
    agent_version: str,
    address: str | None,
) -> Enrolled:
    enrolment = await session.scalar(
        select(Enrolment).where(Enrolment.token_hash == hash_token(token)).with_for_update()
    )
    if enrolment is None or enrolment.revoked_at is not None or enrolment.expires_at <= db.now():
        raise Unauthenticated(_UNKNOWN)
    vm = await session.get(Vm, enrolment.vm_id, with_for_update=True) if enrolment.vm_id else None
    if enrolment.used_at is not None:
        # Asked again because the answer was lost: only the same machine, in the same boot, before it has beaten.
        same = vm is not None and vm.hostname == hostname and enrolment.used_boot_id == boot_id
        if not same or enrolment.confirmed_at is not None:
            raise Unauthenticated(_UNKNOWN)
    if vm is None:
        vm = await _join(session, db, enrolment.pool_id, hostname, address)
        enrolment.vm_id = vm.id
    elif vm.hostname != hostname:
        raise Conflict("This enrolment token is for another machine.", code="wrong_hostname")
    if vm.status in GONE_VM or vm.status == VmStatus.DESTROYING:
        raise Unauthenticated(_UNKNOWN)
    agent_token = new_token()
    enrolment.used_at = enrolment.used_at or db.now()
    enrolment.used_boot_id, enrolment.agent_token_hash = boot_id, hash_token(agent_token)
    await _record_boot(session, db, vm, hostname, boot_id, agent_version, address)
    return Enrolled(agent_token, vm.hostname, vm.id)


async def _join(session: AsyncSession, db: Database, pool_id: int, hostname: str, address: str | None) -> Vm:
    pool = await session.get_one(Pool, pool_id, with_for_update=True)
    check_open(pool)
    if pool.is_rehearsal and not hostname.startswith(SIMULATED):
        raise Conflict(f"The pool '{pool.name}' takes simulated machines alone.", code="rehearsal_pool")
    living = await session.scalar(select(func.count()).where(Vm.pool_id == pool_id, Vm.status.not_in(GONE_VM)))
    if (living or 0) >= pool.max:
        raise Conflict(f"The pool '{pool.name}' already has its {pool.max} machines.", code="pool_full")
    at = db.now()
    vm = Vm(
        hostname=hostname,
        pool_id=pool_id,
        origin=Origin.JOINED,
        status=VmStatus.PROVISIONING,
        status_changed_at=at,
        created_at=at,
        updated_at=at,
    )
    session.add(vm)
    await session.flush()
    record_event(
        session,
        "vm.joined",
        f"{hostname} joined {pool.name}",
        actor=Actor.agent(hostname, address),
        at=at,
        pool_id=pool_id,
        vm_id=vm.id,
    )
    return vm


async def _record_boot(
    session: AsyncSession, db: Database, vm: Vm, hostname: str, boot_id: str, agent_version: str, address: str | None
) -> None:
    if vm.hostname != hostname:
        raise Conflict("This token belongs to another machine.", code="wrong_hostname")
    actor, at = Actor.agent(hostname, address), db.now()
    if vm.boot_id not in (None, boot_id):
        record_event(
            session, "vm.boot", f"{hostname} booted again", actor=actor, at=at, pool_id=vm.pool_id, vm_id=vm.id
        )
    # Whatever the boot: this is a new agent process, and the shells were the former one's.
    await end_terminals_of_vm(session, vm.id, actor=actor, at=at, reason="the agent of the machine was started again")
    vm.boot_id, vm.agent_version, vm.updated_at = boot_id, agent_version, at
    vm.facts = {key: value for key, value in vm.facts.items() if key != "awaiting_boot"}
    if vm.status == VmStatus.PROVISIONING:
        move_vm(session, vm, VmStatus.BOOTING, actor=actor, at=at)


def _row(db: Database, pool_id: int, vm_id: int | None, token: str, actor: Actor) -> Enrolment:
    return Enrolment(
        pool_id=pool_id,
        vm_id=vm_id,
        token_hash=hash_token(token),
        expires_at=db.now() + timedelta(seconds=ENROLMENT_S),
        created_by=actor.name,
        created_at=db.now(),
    )
