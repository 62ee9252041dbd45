"""What is asked all day finds its rows by an index, in a database that has seen a busy year."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from backend.db.engine import Database
from backend.errors import LabLinkError
from backend.services.claim_times import touch_claim
from backend.services.claims import list_claims, request_claim, serve_waiting
from backend.services.commands import expire_commands, list_commands_for_agent
from backend.services.duties import list_duties
from backend.services.enrolments import authenticate_agent
from backend.services.events import EventFilter, list_events
from backend.services.heartbeats import record_heartbeats
from backend.services.history import DAY, MONTH, average_samples, list_samples
from backend.services.seat_browsers import list_browsers, record_seen
from backend.services.sign_in import find_session
from backend.services.vm_logs import list_vm_log
from backend.services.vms import list_vms
from backend.states import Health
from tests.services.test_claims import owner
from tests.services.worlds import make_machines, report

# A year of workshops behind the machines of today. Pools, users and the like stay few: they are read whole.
YEAR = """
INSERT INTO claims (pool_id, vm_id, email, owner_hash, status, status_changed_at, created_at, ended_at)
    SELECT 1, 1 + n % 900, 'p' || n || '@past.org', sha256(n::text::bytea), 'released', at, at, at
    FROM generate_series(1, 15000) AS n, LATERAL (SELECT now() - n * interval '10 minutes') AS t(at);
INSERT INTO seat_browsers (claim_id, owner_hash, opened_at, last_seen_at, ended_at)
    SELECT id, owner_hash, created_at, created_at, created_at FROM claims;
INSERT INTO commands (vm_id, claim_id, kind, payload, status, created_at, deadline_at, delivered_at, finished_at, data)
    SELECT vm_id, id, kind, '{}', 'succeeded', created_at, created_at, created_at, created_at, '{}'
    FROM claims, unnest(ARRAY['prepare_session', 'end_session']) AS kind;
INSERT INTO events (at, actor, kind, message, pool_id, vm_id, claim_id, data)
    SELECT created_at, 'researcher', 'claim.released', 'The claim ended', 1, vm_id, id, '{}'
    FROM claims, generate_series(1, 4);
INSERT INTO health_samples (vm_id, at, cpu_pct, memory_pct, disk_free_pct)
    SELECT 1 + n % 900, now() - n * interval '1 second', 1, 2, 3 FROM generate_series(1, 30000) AS n;
INSERT INTO health_averages (vm_id, at, cpu_pct, memory_pct, disk_free_pct)
    SELECT 1 + n % 900, now() - n * interval '1 second', 1, 2, 3 FROM generate_series(1, 30000) AS n;
INSERT INTO vm_logs (vm_id, at, source, stream, first_seq, last_seq, is_head, bytes, lines)
    SELECT 1 + n % 900, now() - n * interval '1 second', 'boot', '', 1 + n / 900, 1 + n / 900, false, 120, '[[0,"x"]]'
    FROM generate_series(1, 30000) AS n;
ANALYZE;
"""
LARGE = {
    "claims",
    "seat_browsers",
    "commands",
    "events",
    "health_samples",
    "health_averages",
    "vm_logs",
    "vms",
    "enrolments",
}
TOKEN = "a-token-that-nobody-has"


@pytest.fixture
async def busy_db(db: Database) -> AsyncIterator[Database]:
    await make_machines(db, 3)
    async with await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection:
        await connection.execute("""
            INSERT INTO vms (hostname, status, created_at, updated_at, pool_id, origin, status_changed_at, health,
                    health_reasons, price_per_hour, facts, boot_id, first_heartbeat_at)
                SELECT 'old-' || n,
                    CASE WHEN n < 19000 THEN 'destroyed' WHEN n < 19200 THEN 'in-use' ELSE 'available' END,
                    now(), now(), 1, 'joined', now(), 'healthy', '[]', 0, '{}', 'boot-1', now()
                FROM generate_series(1, 20000) AS n;
            INSERT INTO enrolments (pool_id, vm_id, token_hash, expires_at, created_by, created_at, agent_token_hash)
                SELECT 1, id, sha256(id::text::bytea), now(), 'a', now(), sha256((-id)::text::bytea) FROM vms
                WHERE hostname LIKE 'old-%'""")
        for statement in YEAR.split(";\n"):
            await connection.execute(statement)  # type: ignore[arg-type]
    yield db


HOT: dict[str, Callable[[Database], Awaitable[object]]] = {
    "a claim": lambda db: request_claim(db, "lab", "new@lab.org", owner_hash=owner(1)),
    "a claim again": lambda db: request_claim(db, "lab", "new@lab.org", owner_hash=owner(1)),
    "a claim by API": lambda db: request_claim(db, "lab", "api@lab.org", owner_hash=None, idempotency_key="k"),
    "the line": lambda db: serve_waiting(db, 1),
    "whose seat this browser has": lambda db: list_claims(db, owner_hash=owner(1), only_open=True),
    "a seat's page": lambda db: list_browsers(db, 1, owner_hash=owner(1)),
    "a seat's page is open": lambda db: record_seen(db, 1, owner(1)),
    "a key pressed": lambda db: touch_claim(db, 1),
    "an agent's token": lambda db: authenticate_agent(db, TOKEN),
    "a poll for commands": lambda db: list_commands_for_agent(db, 1),
    "heartbeats": lambda db: record_heartbeats(
        db, [report(db, vm_id, 0, health=Health.DEGRADED) for vm_id in range(1, 20)]
    ),
    "an admin's session": lambda db: find_session(db, TOKEN),
    "changed machines": lambda db: list_vms(db, ids=[1, 2, 3]),
    "changed claims": lambda db: list_claims(db, ids=[1, 2, 3]),
    "a machine's charts": lambda db: list_samples(db, 1, DAY),
    "a machine's month": lambda db: list_samples(db, 1, MONTH),
    "averages": average_samples,
    "a machine's log": lambda db: list_vm_log(db, 1),
    "a machine's events": lambda db: list_events(db, EventFilter(vm_id=1)),
    "the newest events": lambda db: list_events(db, EventFilter()),
    "overdue commands": expire_commands,
    "what there is to do": list_duties,
}


async def test_every_hot_query_finds_its_rows_by_an_index(busy_db: Database) -> None:
    read_whole = {}
    async with await psycopg.AsyncConnection.connect(busy_db.conninfo) as planner:
        for name, ask in HOT.items():
            # An unknown token is refused: what was asked for that is what counts.
            with recording() as sent, suppress(LabLinkError):
                await ask(busy_db)
            assert sent, name
            for query, values in sent:
                plan = await explain(planner, query, values)
                if found := tables_read_whole(plan) & LARGE:
                    read_whole[name] = (found, str(query)[:300])
    assert read_whole == {}


@contextmanager
def recording() -> Iterator[list[tuple[Any, Any]]]:
    """Every statement that is sent to Postgres within the block, with its values."""
    sent: list[tuple[Any, Any]] = []
    plain = psycopg.AsyncCursor.execute

    async def execute(cursor: Any, query: Any, params: Any = None, **options: Any) -> Any:
        sent.append((query, params))
        return await plain(cursor, query, params, **options)

    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        psycopg.AsyncCursor.execute = plain  # type: ignore[method-assign]


async def explain(connection: psycopg.AsyncConnection, query: Any, values: Any) -> dict[str, Any]:
    """The plan, made anew for these very values."""
    asked = b"EXPLAIN (FORMAT JSON) " + (query if isinstance(query, bytes) else query.encode())
    if b"SELECT pg_advisory" in asked:
        return {}
    row = await (await connection.execute(asked, values)).fetchone()
    assert row
    return (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]


def tables_read_whole(plan: dict[str, Any]) -> set[str]:
    found = {plan["Relation Name"]} if plan.get("Node Type") == "Seq Scan" else set()
    return found.union(*(tables_read_whole(part) for part in plan.get("Plans", ())))
