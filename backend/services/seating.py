"""Seating: how a machine is given to a person, by a click or from the line. One statement each, one trip to Postgres.

When a class arrives at nine o'clock, this is what hundreds ask for in the same minute; as a dozen statements it cost
ten times as much, and those who come while one statement is under way share the next. All of it holds in each
statement's one snapshot: nobody is seated past somebody who stood in line when a VM was free, and whoever is refused
leaves no trace.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
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
Ask = dict[str, Any]


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


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where people come in: a pool, and what it must let them in by."""

    pool: str
    access: Access


def describe_ask(entrance: Entrance, admitted: Admitted, asked: Asked, *, at: datetime) -> Ask:
    """One who asks, as ``take_places`` takes them; what comes of it bears the id of the present request."""
    return {
        "email": admitted.email,
        "person": admitted.person,
        "owner_hash": _hex(asked.owner_hash),
        "idempotency_hash": _hex(asked.idempotency_hash),
        "key_hash": _hex(asked.key_hash),
        "link_hash": _hex(asked.link_hash),
        "link_expires_at": asked.link_expires_at.isoformat() if asked.link_expires_at else None,
        "user_agent": (asked.user_agent or "")[:MAX_USER_AGENT] or None,
        "in_line": redact(f"{admitted.email} stands in line for {entrance.pool}"),
        **_values_of_seat(admitted.email, Actor.researcher(admitted.email, asked.address), at),
    }


async def take_places(connection: Connection, entrance: Entrance, asks: Sequence[Ask]) -> list[Place | None]:
    """Makes a claim for each, in this order: with the healthiest free VM of the pool, or else in line.

    None, and nothing is changed, for whom something stands in the way: the pool is closed or lets people in by
    something else than ``access``, or the browser, e-mail, person or idempotency key has a seat there already.
    """
    values = {"pool": entrance.pool, "access": entrance.access, "asked": json.dumps(asks)}
    rows = await (await connection.execute(_TAKE_PLACES, values)).fetchall()
    places = {row[0]: Place(*row[1:]) for row in rows}
    return [places.get(bytes.fromhex(ask["key_hash"][2:])) for ask in asks]


async def seat_next(session: AsyncSession, pool_id: int, *, at: datetime) -> bool:
    """Gives a free VM to the first who waits. Returns whether there were both; what was to be written must be flushed.

    The caller holds the pool's line.
    """
    connection = await driver_connection(session)
    waiting = await (await connection.execute(_FIND_NEXT, {"pool_id": pool_id})).fetchone()
    if waiting is None:
        return False
    claim_id, email = waiting
    values = {
        "pool_id": pool_id,
        "claim_id": claim_id,
        "asked": json.dumps(_values_of_seat(email, Actor.rule("line"), at)),
    }
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
    found = text(_FREE_VM.format(columns="*", pool_id=":pool_id", count=1))
    vms = await session.scalars(select(Vm).from_statement(found), {"pool_id": pool_id})
    return vms.one_or_none()


def _values_of_seat(email: str, actor: Actor, at: datetime) -> dict[str, Any]:
    return {
        "at": at.isoformat(),
        "actor": actor.name,
        "address": actor.address,
        # An e-mail is what somebody typed; a hostname, which is put in by the statement, has the form of one.
        "preparing": redact(f"The claim of {email} is {ClaimStatus.PREPARING}"),
        "request": request_data(),
        "deadline_at": (at + timedelta(seconds=PREPARE_DEADLINE_S)).isoformat(),
    }


def _hex(secret: bytes | None) -> str | None:
    return None if secret is None else f"\\x{secret.hex()}"


# The offer: healthiest first ('healthy' sorts after 'degraded'), then longest ready; the index ix_vms_offer is in this
# very order, so that the first entry is the answer.
_FREE_VM = f"""
    SELECT {{columns}} FROM vms
    WHERE pool_id = {{pool_id}} AND status = '{VmStatus.AVAILABLE}'
        AND unreachable_since IS NULL AND health <> '{Health.UNHEALTHY}'
    ORDER BY health DESC, status_changed_at, id LIMIT {{count}} FOR UPDATE SKIP LOCKED"""

# Who asks, one row each; `key_hash`, being random, tells them apart.
_ASKED = """
    SELECT * FROM ROWS FROM (json_to_recordset(%(asked)s::json) AS (
        email text, person text, owner_hash bytea, idempotency_hash bytea, key_hash bytea, link_hash bytea,
        link_expires_at timestamptz, user_agent text, in_line text, at timestamptz, actor text, address text,
        preparing text, request jsonb, deadline_at timestamptz)) WITH ORDINALITY"""

# What follows for those who got a VM: `seated` is their claim and VM, and what is to be written down. `moves` guards
# the moves of rows that were read before; here both ends of each move stand in the statement itself.
_SEATED = f"""
vm AS (
    UPDATE vms SET status = '{VmStatus.IN_USE}', status_changed_at = seated.at, updated_at = seated.at, reason = NULL,
        email = seated.email
    FROM seated WHERE vms.id = seated.vm_id
),
command AS (
    INSERT INTO commands (vm_id, claim_id, kind, payload, status, created_at, deadline_at, data)
    SELECT vm_id, claim_id, '{CommandKind.PREPARE_SESSION}', jsonb_build_object('claim_id', claim_id) || request,
        '{CommandStatus.QUEUED}', at, deadline_at, '{{}}'
    FROM seated
),
lines AS (
    SELECT 1 AS line, 'vm.{VmStatus.IN_USE}' AS kind, hostname || ' is {VmStatus.IN_USE}' AS message,
        at, actor, address, pool_id, vm_id, claim_id, '{{"was": "{VmStatus.AVAILABLE}"}}'::jsonb || request AS data
    FROM seated
    UNION ALL
    SELECT 2, 'claim.{ClaimStatus.PREPARING}', preparing,
        at, actor, address, pool_id, vm_id, claim_id, '{{"was": "{ClaimStatus.WAITING}"}}'::jsonb || request
    FROM seated
)"""
_EVENTS = """
    INSERT INTO events (at, actor, address, kind, message, pool_id, vm_id, claim_id, data)
    SELECT at, actor, address, kind, message, pool_id, vm_id, claim_id, data FROM ({lines}) AS lines
    ORDER BY claim_id, line"""

_FREE_VMS = _FREE_VM.format(
    columns="id, hostname, health, status_changed_at",
    pool_id="(SELECT id FROM pool WHERE NOT has_line)",
    count="(SELECT count(*) FROM welcome)",
)
_LINES_OF_ALL = f"""
    SELECT * FROM lines
    UNION ALL
    SELECT 3, 'claim.{ClaimStatus.WAITING}', in_line, at, actor, address, pool_id, NULL, claim_id, request
    FROM made WHERE vm_id IS NULL"""

_TAKE_PLACES = f"""
WITH pool AS (
    SELECT id, name, claim_duration_s,
        EXISTS (SELECT FROM claims WHERE pool_id = pools.id AND status = '{ClaimStatus.WAITING}') AS has_line
    FROM pools WHERE name = %(pool)s AND status = '{PoolStatus.OPEN}' AND access = %(access)s
),
welcome AS (
    SELECT asked.*, row_number() OVER (ORDER BY ordinality) AS turn
    FROM ({_ASKED}) AS asked, pool
    -- Asked before a VM is locked; two at the same moment are told apart by the unique indexes.
    WHERE NOT EXISTS (
            SELECT FROM claims WHERE pool_id = pool.id AND lower(email) = lower(asked.email)
                AND status IN ({quoted(OPEN_CLAIM)}))
        AND NOT EXISTS (
            SELECT FROM seat_browsers AS b JOIN claims AS c ON c.id = b.claim_id
            WHERE b.owner_hash = asked.owner_hash AND b.ended_at IS NULL
                AND c.pool_id = pool.id AND c.status IN ({quoted(OPEN_CLAIM)}))
),
free AS ({_FREE_VMS}
),
offer AS (
    SELECT id, hostname, row_number() OVER (ORDER BY health DESC, status_changed_at, id) AS turn FROM free
),
claim AS (
    INSERT INTO claims (pool_id, vm_id, email, person, owner_hash, idempotency_hash, key_hash,
        status, status_changed_at, created_at, last_active_at, ends_at)
    SELECT pool.id, offer.id, welcome.email, person, owner_hash, idempotency_hash, key_hash,
        CASE WHEN offer.id IS NULL THEN '{ClaimStatus.WAITING}' ELSE '{ClaimStatus.PREPARING}' END,
        at, at, CASE WHEN offer.id IS NOT NULL THEN at END,
        -- A seat's time begins with its machine.
        CASE WHEN offer.id IS NOT NULL THEN at + make_interval(secs => claim_duration_s) END
    FROM pool, welcome LEFT JOIN offer USING (turn)
    ORDER BY turn
    ON CONFLICT DO NOTHING
    RETURNING id, pool_id, vm_id, key_hash, ends_at
),
made AS (
    SELECT claim.id AS claim_id, claim.pool_id, claim.vm_id, claim.ends_at, offer.hostname, welcome.*
    FROM claim JOIN welcome USING (key_hash) LEFT JOIN offer ON offer.id = claim.vm_id
),
browser AS (
    INSERT INTO seat_browsers (claim_id, owner_hash, address, user_agent, opened_at, last_seen_at)
    SELECT claim_id, owner_hash, address, user_agent, at, at FROM made WHERE owner_hash IS NOT NULL
),
link AS (
    INSERT INTO seat_links (claim_id, token_hash, expires_at)
    SELECT claim_id, link_hash, link_expires_at FROM made WHERE link_hash IS NOT NULL
),
seated AS (SELECT * FROM made WHERE vm_id IS NOT NULL),{_SEATED},
event AS ({_EVENTS.format(lines=_LINES_OF_ALL)}
)
SELECT key_hash, claim_id, pool_id, vm_id, hostname, ends_at,
    -- The snapshot holds everybody who waits but these.
    CASE WHEN vm_id IS NULL THEN row_number() OVER (PARTITION BY vm_id IS NULL ORDER BY claim_id) + (
        SELECT count(*) FROM claims AS ahead
        WHERE ahead.pool_id = made.pool_id AND ahead.status = '{ClaimStatus.WAITING}') END
FROM made""".encode()

_FIND_NEXT = f"""
SELECT id, email FROM claims WHERE pool_id = %(pool_id)s AND status = '{ClaimStatus.WAITING}'
ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED""".encode()

_SEAT_WAITING = f"""
WITH asked AS (
    SELECT * FROM json_to_record(%(asked)s::json) AS asked(
        at timestamptz, actor text, address text, preparing text, request jsonb, deadline_at timestamptz)
),
free AS ({_FREE_VM.format(columns="id, hostname", pool_id="%(pool_id)s", count=1)}
),
claim AS (
    UPDATE claims SET vm_id = free.id, status = '{ClaimStatus.PREPARING}', status_changed_at = at, reason = NULL,
        last_active_at = at, warned_at = NULL, warned_again_at = NULL,
        ends_at = at + make_interval(secs => pool.claim_duration_s)
    FROM free, asked, pools AS pool WHERE claims.id = %(claim_id)s AND pool.id = claims.pool_id
    RETURNING claims.id AS claim_id, claims.pool_id, claims.vm_id, claims.email
),
seated AS (SELECT claim.*, free.hostname, asked.* FROM claim JOIN free ON free.id = claim.vm_id, asked),{_SEATED},
event AS ({_EVENTS.format(lines="SELECT * FROM lines")}
)
SELECT vm_id FROM seated""".encode()
