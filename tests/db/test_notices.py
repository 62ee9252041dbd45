from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from backend.db import notices
from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener
from backend.live.changes import ChangeSet
from backend.live.read_model import TOLD_AT_ONCE, Audience, ReadModel
from backend.services.heartbeats import record_heartbeats
from backend.services.pools import PoolSpec, ensure_pool, update_pool
from tests.harness.waiting import until
from tests.services.worlds import ADMIN, make_machines

MANY_VMS = """
INSERT INTO vms (hostname, status, pool_id, origin, status_changed_at, created_at, updated_at, health_reasons,
                 price_per_hour, facts)
SELECT 'many-' || n, 'available', (SELECT min(id) FROM pools), 'joined', now(), now(), now(), '[]', 0, '{}'
FROM generate_series(1, 3000) AS n"""
END_LISTENER = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = 'lablink-listener' AND datname = current_database()"""


class Heard:
    """A listener of its own, and what it heard."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.notices: list[Notice] = []
        self.gaps = self.losses = 0
        self.listener = NoticeListener(db.conninfo)
        self.listener.subscribe(self.notices.append, on_gap=self._count_gap, on_lost=self._count_loss)

    def ids(self, table: str) -> list[int]:
        return [each for notice in self.notices if notice.table == table for each in notice.ids]

    async def all_until_now(self) -> None:
        """Waits until everything that was committed so far has been heard: notices keep their order."""
        number = len(self.notices) + 1
        await notify(self._db, f'{{"table": "marker", "ids": [{number}]}}')
        await until(lambda: number in self.ids("marker"), every_s=0.005, what="the marker is heard")

    def _count_gap(self) -> None:
        self.gaps += 1

    def _count_loss(self) -> None:
        self.losses += 1


@asynccontextmanager
async def running(work: Callable[[], object]) -> AsyncIterator[None]:
    task = asyncio.create_task(work())  # type: ignore[arg-type]
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def heard(db: Database) -> AsyncIterator[Heard]:
    it = Heard(db)
    async with running(it.listener.run):
        await until(lambda: it.listener.connected, every_s=0.005)
        yield it


async def notify(db: Database, payload: str) -> None:
    async with db.transaction() as session:
        await session.execute(text("SELECT pg_notify('lablink', :payload)"), {"payload": payload})


async def execute(db: Database, statement: str) -> None:
    async with db.transaction() as session:
        await session.execute(text(statement))


@asynccontextmanager
async def cut_off(db: Database, *, but: int = 0) -> AsyncIterator[None]:
    """Ends every connection to the database (but one), and lets no new one in until the end."""
    name = psycopg.conninfo.conninfo_to_dict(db.conninfo)["dbname"]
    admin = db.conninfo.replace(f"/{name}?", "/postgres?", 1)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> %s"
    async with await psycopg.AsyncConnection.connect(admin, autocommit=True) as connection:
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
        await connection.execute(end, [name, but])
        yield
        await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]


async def test_every_statement_on_vms_is_told_with_the_ids_it_changed(db: Database, heard: Heard) -> None:
    await make_machines(db, 3)
    await heard.all_until_now()
    assert set(heard.ids("vms")) == {1, 2, 3}
    for statement in ("UPDATE vms SET email = 'ada@lab.org' WHERE id = 2", "DELETE FROM vms WHERE id = 3"):
        heard.notices.clear()
        await execute(db, statement)
        await heard.all_until_now()
        assert [notice for notice in heard.notices if notice.table == "vms"] == [
            Notice("vms", (int(statement[-1]),), (1,))
        ]


async def test_what_is_rolled_back_is_not_told(db: Database, heard: Heard) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    await heard.all_until_now()
    heard.notices.clear()
    with contextlib.suppress(ZeroDivisionError):
        async with db.transaction() as session:
            await session.execute(text("UPDATE pools SET max = 7"))
            raise ZeroDivisionError
    await heard.all_until_now()
    assert heard.ids("pools") == []


async def test_one_statement_on_3000_rows_is_told_in_several_payloads_of_less_than_8000_bytes(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    async with await psycopg.AsyncConnection.connect(db.conninfo, autocommit=True) as connection:
        # Ids as long as a table that has seen two billion rows gives out.
        await connection.execute("ALTER SEQUENCE vms_id_seq RESTART WITH 2147480000")
        await connection.execute(MANY_VMS)
        await connection.execute("LISTEN lablink")
        await connection.execute("UPDATE vms SET email = 'ada@lab.org'")
        payloads = [notify.payload async for notify in connection.notifies(timeout=20, stop_after=10)]
    assert len(payloads) == 10
    assert max(len(payload.encode()) for payload in payloads) < 8_000
    bodies = [json.loads(payload) for payload in payloads]
    assert all(body["table"] == "vms" and body["parents"] == [1] for body in bodies)
    ids = [each for body in bodies for each in body["ids"]]
    assert sorted(ids) == list(range(2147480000, 2147483000))


async def test_plain_heartbeats_tell_nobody_anything(db: Database, heard: Heard) -> None:
    reports = await make_machines(db, 5)
    await heard.all_until_now()
    heard.notices.clear()
    for _ in range(3):
        await record_heartbeats(db, reports)
    await heard.all_until_now()
    assert {notice.table for notice in heard.notices} == {"marker"}


async def test_a_listener_that_is_cut_off_comes_back_and_says_that_it_may_have_missed_something(
    db: Database, heard: Heard
) -> None:
    assert (heard.gaps, heard.losses) == (1, 0)
    await execute(db, END_LISTENER)
    await until(lambda: heard.losses == 1, every_s=0.005)
    await until(lambda: heard.gaps == 2, every_s=0.005)
    assert heard.listener.connected
    await heard.all_until_now()


async def test_no_notice_is_lost_while_the_listener_looks_after_its_own_connection(
    db: Database, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "BEAT_S", 0.001)
    await execute(db, END_LISTENER)
    await until(lambda: heard.gaps == 2, every_s=0.005)
    for number in range(1, 201):
        await notify(db, f'{{"table": "numbers", "ids": [{number}]}}')
    await heard.all_until_now()
    assert heard.ids("numbers") == list(range(1, 201))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
BODIES = JSON | st.fixed_dictionaries({"table": JSON, "ids": JSON}, optional={"parents": JSON})


@given(payload=BODIES.map(json.dumps) | st.text() | st.just("[" * 7_000))
def test_whatever_is_not_ours_is_ignored(payload: str) -> None:
    listener, delivered = NoticeListener(""), []
    listener.subscribe(delivered.append)
    listener._deliver(payload)
    for notice in delivered:
        assert isinstance(notice.table, str)
        assert all(type(each) is int and 0 < each < 2**63 for each in (*notice.ids, *notice.parents))


@asynccontextmanager
async def live_model(db: Database) -> AsyncIterator[tuple[ReadModel, list[ChangeSet]]]:
    """A running read model whose backup poll never comes, and what it told."""
    listener = NoticeListener(db.conninfo)
    model, told = ReadModel(db, listener, max_hz=50, backup_poll_s=3_600), []
    model.subscribe(told.append)
    async with running(listener.run), running(model.run):
        await until(lambda: model.snapshot.is_live, every_s=0.005)
        yield model, told


async def test_what_changed_while_the_listener_was_cut_off_is_read_afterwards(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=5), actor=ADMIN)
    async with live_model(db) as (model, told), await psycopg.AsyncConnection.connect(db.conninfo) as other:
        async with cut_off(db, but=other.info.backend_pid):
            await until(lambda: not model.snapshot.is_live, every_s=0.005)
            await other.execute("UPDATE pools SET max = 77")
            await other.commit()
        assert model.snapshot.pools[1].max == 5
        await until(lambda: model.snapshot.pools[1].max == 77 and model.snapshot.is_live, within_s=5, every_s=0.005)
        assert [pool.max for changes in told for pool in changes.pools.upserts] == [5, 77]
        assert [changes.seq for changes in told] == list(range(1, len(told) + 1))


async def test_a_sum_over_a_picture_is_made_once_for_all_pages_and_anew_for_the_next_picture(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=5), actor=ADMIN)
    async with live_model(db) as (model, _):
        made: list[int] = []

        def total() -> int:
            made.append(sum(pool.max for pool in model.snapshot.pools.values()))
            return made[-1]

        assert [model.snapshot.once("total", total) for _ in range(200)] == [5] * 200
        await update_pool(db, "lab", PoolSpec(max=33), actor=ADMIN)
        await until(lambda: model.snapshot.pools[1].max == 33, every_s=0.005)
        assert model.snapshot.once("total", total) == 33
        assert made == [5, 33]


async def test_researchers_are_told_first_and_while_many_admins_are_told_others_have_their_turn(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=5), actor=ADMIN)
    async with live_model(db) as (model, _):
        turns, told = 0, list[tuple[int, int]]()

        async def take_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        def subscribe(number: int, audience: Audience) -> Callable[[], None]:
            return model.subscribe(lambda _: told.append((number, turns)) or True, audience)

        ends = [subscribe(number, Audience.ADMINS) for number in range(1, 101)]
        # Whoever goes while others are told hears nothing more.
        model.subscribe(lambda _: ends[99](), Audience.RESEARCHERS)
        subscribe(0, Audience.RESEARCHERS)
        async with running(take_turns):
            await update_pool(db, "lab", PoolSpec(max=33), actor=ADMIN)
            await until(lambda: len(told) == 100, every_s=0.005)
        assert [number for number, _ in told] == list(range(100))
        assert len({turn for _, turn in told}) > 100 / TOLD_AT_ONCE
        assert model.pages == 101


async def test_pages_are_true_again_soon_after_every_connection_died(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    async with live_model(db) as (model, _):
        async with cut_off(db):
            await until(lambda: not model.snapshot.is_live, every_s=0.005)
        await until(lambda: model.snapshot.is_live, within_s=5, every_s=0.005)
        await update_pool(db, "lab", PoolSpec(max=33), actor=ADMIN)
        await until(lambda: model.snapshot.pools[1].max == 33, every_s=0.005)


async def test_notices_of_strangers_do_not_disturb_the_read_model(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    async with live_model(db) as (model, _):
        for payload in (
            "hello",
            '{"table": "pools", "ids": ["x"]}',
            '{"table": ["pools"], "ids": [1]}',
            '{"table": "vms", "ids": [1], "parents": {"a": 1}}',
            '{"table": "vms", "ids": [99999999999999999999999]}',
            '{"table": "nothing", "ids": [1]}',
        ):
            await notify(db, payload)
        await update_pool(db, "lab", PoolSpec(max=34), actor=ADMIN)
        await until(lambda: model.snapshot.pools[1].max == 34, every_s=0.005)
        assert model.snapshot.is_live


async def test_a_change_that_was_read_when_the_rest_could_not_be_is_told_all_the_same(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=5), actor=ADMIN)
    model, told = ReadModel(db, NoticeListener(db.conninfo)), []
    model.subscribe(told.append)
    await execute(db, "ALTER TABLE operations RENAME TO gone")
    with pytest.raises(Exception, match="operations"):
        await model.refresh()
    assert told == []
    await execute(db, "ALTER TABLE gone RENAME TO operations")
    await model.refresh()
    assert [pool.name for changes in told for pool in changes.pools.upserts] == ["lab"]
