"""Seating: how a machine is given to a person, by a click or from the line. One statement each, one trip to Postgres.

When a class arrives at nine o'clock, this is what hundreds ask for in the same minute; as a dozen statements it cost
ten times as much. All of it holds in each statement's one snapshot: nobody is seated past somebody who stood in line
when a VM was free, and whoever is refused leaves no trace.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.util import identity_key

from backend.db.engine import driver_connection
from backend.db.express import Connection
from backend.models import Claim, Vm
from backend.models.base import quoted
from backend.redaction import redact
from backend.request_ids import request_data
from backend.services.actor import Actor
from backend.services.admission import Admitted
from backend.states import OPEN_CLAIM, Access, ClaimStatus, CommandKind, CommandStatus, Health, PoolStatus, VmStatus

PREPARE_DEADLINE_S = 120
MAX_USER_AGENT = 300


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody who asks for a seat brings along besides their name; secrets as their SHA-256."""

    key_hash: bytes
    owner_hash: bytes | None = None
    idempotency_hash: bytes | None = None
    link_hash: bytes | None = None
    link_expires_at: datetime | None = None
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What became of it: a VM, or a ``position`` in line."""

    claim_id: int
    pool_id: int
    vm_id: int | None
    hostname: str | None
    ends_at: datetime | None
    position: int | None


async def take_place(
    connection: Connection, pool_name: str, access: Access, admitted: Admitted, asked: Asked, *, at: datetime
) -> Place | None:
    """Makes a claim: with the healthiest free VM of the pool, or else in line.

    None, and nothing is changed, where something stands in the way: the pool is closed or lets people in by something
    else than ``access``, or the browser, e-mail, person or idempotency key has a seat there already.
    """
    actor = Actor.researcher(admitted.email, asked.address)
    values = {
        "pool": pool_name,
        "access": access,
        "email": admitted.email,
        "person": admitted.person,
        "owner_hash": asked.owner_hash,
        "idempotency_hash": asked.idempotency_hash,
        "key_hash": asked.key_hash,
        "link_hash": asked.link_hash,
        "link_expires_at": asked.link_expires_at,
        "user_agent": (asked.user_agent or "")[:MAX_USER_AGENT] or None,
        "in_line": redact(f"{admitted.email} stands in line for {pool_name}"),
        **_values_of_seat(admitted.email, actor, at),
    }
    row = await (await connection.execute(_TAKE_PLACE, values)).fetchone()
    return Place(*row) if row else None


async def seat_next(session: AsyncSession, pool_id: int, *, at: datetime) -> bool:
    """Gives a free VM to the first who waits. Returns whether there were both; what was to be written must be flushed.

    The caller holds the pool's line.
    """
    connection = await driver_connection(session)
    waiting = await (await connection.execute(_FIND_NEXT, {"pool_id": pool_id})).fetchone()
    if waiting is None:
        return False
    claim_id, email = waiting
    values = {"pool_id": pool_id, "claim_id": claim_id, **_values_of_seat(email, Actor.rule("line"), at)}
    row = await (await connection.execute(_SEAT_WAITING, values)).fetchone()
    if row is None:
        return False
    for key in (identity_key(Claim, claim_id), identity_key(Vm, row[0])):
        # Whoever has read them in this transaction must not go on with what they were.
        if (held := session.sync_session.identity_map.get(key)) is not None:
            session.expire(held)
    return True


async def find_free_vm(session: AsyncSession, pool_id: int) -> Vm | None:
    """The healthiest free VM of the pool, locked; VMs that other claims are taking right now are stepped over."""
    found = text(_FREE_VM.format(columns="*", pool_id=":pool_id"))
    vms = await session.scalars(select(Vm).from_statement(found), {"pool_id": pool_id})
    return vms.one_or_none()


def _values_of_seat(email: str, actor: Actor, at: datetime) -> dict[str, Any]:
    return {
        "at": at,
        "actor": actor.name,
        "address": actor.address,
        # An e-mail is what somebody typed; a hostname, which is put in by the statement, has the form of one.
        "preparing": redact(f"The claim of {email} is {ClaimStatus.PREPARING}"),
        "request": json.dumps(request_data()),
        "deadline_at": at + timedelta(seconds=PREPARE_DEADLINE_S),
    }


# The offer: healthiest first ('healthy' sorts after 'degraded'), then longest ready; the index ix_vms_offer is in this
# very order, so that the first entry is the answer.
_FREE_VM = f"""
    SELECT {{columns}} FROM vms
    WHERE pool_id = {{pool_id}} AND status = '{VmStatus.AVAILABLE}'
        AND unreachable_since IS NULL AND health <> '{Health.UNHEALTHY}'
    ORDER BY health DESC, status_changed_at, id LIMIT 1 FOR UPDATE SKIP LOCKED"""

# What follows from a claim that has got a VM; `claim` and `free` are that claim and that VM. `moves` guards the moves
# of rows that were read before; here both ends of each move stand in the statement itself.
_SEATED = f"""
vm AS (
    UPDATE vms SET status = '{VmStatus.IN_USE}', status_changed_at = %(at)s, updated_at = %(at)s, reason = NULL,
        email = claim.email
    FROM claim WHERE vms.id = claim.vm_id
),
command AS (
    INSERT INTO commands (vm_id, claim_id, kind, payload, status, created_at, deadline_at, data)
    SELECT vm_id, id, '{CommandKind.PREPARE_SESSION}', jsonb_build_object('claim_id', id) || %(request)s::jsonb,
        '{CommandStatus.QUEUED}',
        %(at)s, %(deadline_at)s, '{{}}'
    FROM claim WHERE vm_id IS NOT NULL
),
seat_events AS (
    SELECT 1 AS line, 'vm.{VmStatus.IN_USE}' AS kind, free.hostname || ' is {VmStatus.IN_USE}' AS message,
        claim.pool_id, claim.vm_id, claim.id AS claim_id, '{{"was": "{VmStatus.AVAILABLE}"}}'::jsonb AS data
    FROM claim JOIN free ON free.id = claim.vm_id
    UNION ALL
    SELECT 2, 'claim.{ClaimStatus.PREPARING}', %(preparing)s, pool_id, vm_id, id,
        '{{"was": "{ClaimStatus.WAITING}"}}'::jsonb
    FROM claim WHERE vm_id IS NOT NULL
)"""
_EVENTS = """
    INSERT INTO events (at, actor, address, kind, message, pool_id, vm_id, claim_id, data)
    SELECT %(at)s, %(actor)s, %(address)s::text, kind, message, pool_id, vm_id, claim_id,
        data || %(request)s::jsonb
    FROM {lines} ORDER BY line"""
# A seat's time begins with its machine.
_ENDS_AT = "%(at)s + make_interval(secs => pool.claim_duration_s)"

_TAKE_PLACE = f"""
WITH pool AS (
    SELECT id, claim_duration_s,
        EXISTS (SELECT FROM claims WHERE pool_id = pools.id AND status = '{ClaimStatus.WAITING}') AS has_line
    FROM pools
    WHERE name = %(pool)s AND status = '{PoolStatus.OPEN}' AND access = %(access)s
        -- Asked before a VM is locked; two at the same moment are told apart by the unique indexes.
        AND NOT EXISTS (
            SELECT FROM claims WHERE pool_id = pools.id AND lower(email) = lower(%(email)s)
                AND status IN ({quoted(OPEN_CLAIM)}))
        AND NOT EXISTS (
            SELECT FROM seat_browsers AS b JOIN claims AS c ON c.id = b.claim_id
            WHERE b.owner_hash = %(owner_hash)s::bytea AND b.ended_at IS NULL
                AND c.pool_id = pools.id AND c.status IN ({quoted(OPEN_CLAIM)}))
),
free AS ({_FREE_VM.format(columns="id, hostname", pool_id="(SELECT id FROM pool WHERE NOT has_line)")}
),
claim AS (
    INSERT INTO claims (pool_id, vm_id, email, person, owner_hash, idempotency_hash, key_hash,
        status, status_changed_at, created_at, last_active_at, ends_at)
    SELECT pool.id, free.id, %(email)s, %(person)s::text, %(owner_hash)s::bytea, %(idempotency_hash)s::bytea,
        %(key_hash)s, CASE WHEN free.id IS NULL THEN '{ClaimStatus.WAITING}' ELSE '{ClaimStatus.PREPARING}' END,
        %(at)s, %(at)s, CASE WHEN free.id IS NOT NULL THEN %(at)s END,
        CASE WHEN free.id IS NOT NULL THEN {_ENDS_AT} END
    FROM pool LEFT JOIN free ON true
    ON CONFLICT DO NOTHING
    RETURNING id, pool_id, vm_id, email, ends_at
),
browser AS (
    INSERT INTO seat_browsers (claim_id, owner_hash, address, user_agent, opened_at, last_seen_at)
    SELECT id, %(owner_hash)s::bytea, %(address)s::text, %(user_agent)s::text, %(at)s, %(at)s
    FROM claim WHERE %(owner_hash)s::bytea IS NOT NULL
),
link AS (
    INSERT INTO seat_links (claim_id, token_hash, expires_at)
    SELECT id, %(link_hash)s::bytea, %(link_expires_at)s::timestamptz
    FROM claim WHERE %(link_hash)s::bytea IS NOT NULL
),{_SEATED},
lines AS (
    SELECT * FROM seat_events
    UNION ALL
    SELECT 3, 'claim.{ClaimStatus.WAITING}', %(in_line)s, pool_id, NULL, id, '{{}}'::jsonb
    FROM claim WHERE vm_id IS NULL
),
event AS ({_EVENTS.format(lines="lines")}
)
SELECT claim.id, claim.pool_id, claim.vm_id, free.hostname, claim.ends_at,
    -- The snapshot holds everybody who waits but this one.
    CASE WHEN claim.vm_id IS NULL THEN 1 + (
        SELECT count(*) FROM claims AS ahead
        WHERE ahead.pool_id = claim.pool_id AND ahead.status = '{ClaimStatus.WAITING}') END
FROM claim LEFT JOIN free ON free.id = claim.vm_id""".encode()

_FIND_NEXT = f"""
SELECT id, email FROM claims WHERE pool_id = %(pool_id)s AND status = '{ClaimStatus.WAITING}'
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED""".encode()

_SEAT_WAITING = f"""
WITH free AS ({_FREE_VM.format(columns="id, hostname", pool_id="%(pool_id)s")}
),
claim AS (
    UPDATE claims SET vm_id = free.id, status = '{ClaimStatus.PREPARING}', status_changed_at = %(at)s, reason = NULL,
        last_active_at = %(at)s, warned_at = NULL, warned_again_at = NULL, ends_at = {_ENDS_AT}
    FROM free, pools AS pool WHERE claims.id = %(claim_id)s AND pool.id = claims.pool_id
    RETURNING claims.id, claims.pool_id, claims.vm_id, claims.email
),{_SEATED},
event AS ({_EVENTS.format(lines="seat_events")}
)
SELECT vm_id FROM claim""".encode()
