"""The rules of terminals and watches, and what of their output is kept."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.live.output import KEPT, Output
from backend.models import Enrolment, Terminal, Vm
from backend.services.actor import Actor
from backend.services.claims import release_own_claim, request_claim
from backend.services.enrolments import announce_boot, create_enrolments
from backend.services.local_terminals import check_host
from backend.services.pools import PoolSpec, create_pool, set_pool_open, update_pool
from backend.services.terminal_watches import agree_to_watch, end_watch, list_watches, request_watch
from backend.services.terminals import list_standing, list_terminals, record_connected, request_terminal
from backend.services.tokens import hash_token
from tests.harness.waiting import until
from tests.services.worlds import ADMIN, make_machines, obey

OWNER_HASH, OTHER_HASH = b"o" * 32, b"x" * 32
OWNER = Actor.researcher("ada@lab.org")


@pytest.fixture
async def claim(db: Database):
    """An active seat in a pool that offers terminals; its machine."""
    await create_pool(db, "lab", PoolSpec(terminal=True, max=10), actor=ADMIN)
    (machine,) = await make_machines(db, 1)
    found = (await request_claim(db, "lab", "ada@lab.org", owner_hash=OWNER_HASH)).claim
    with pytest.raises(Conflict, match="not ready"):
        await request_terminal(db, found.id, actor=OWNER)
    assert await obey(db, machine.vm_id) == ["prepare_session"]
    return found


async def test_a_terminal_that_the_agent_cannot_open_ends_with_its_reason(db: Database, claim) -> None:
    terminal = await request_terminal(db, claim.id, actor=OWNER)
    assert await obey(db, claim.vm_id, succeeded=False) == ["open_terminal"]
    (ended,) = await list_terminals(db, claim.id, only_open=False)
    assert (ended.id, ended.ended_at is not None) == (terminal.id, True)
    assert "could not be opened" in (ended.reason or "")


async def test_the_end_of_a_claim_ends_its_terminals_and_watches_at_once(db: Database, claim) -> None:
    terminal = await request_terminal(db, claim.id, actor=OWNER)
    watch = await request_watch(db, claim.id, "kim", may_type=False, actor=Actor.admin("kim"))
    await agree_to_watch(db, claim.id, watch.id, may_type=False, owner_hash=OWNER_HASH, actor=OWNER)
    standing = (await list_standing(db, [terminal.id]))[terminal.id]
    assert (standing.over, standing.owners, dict(standing.watchers)) == (None, {OWNER_HASH}, {"kim": False})
    await release_own_claim(db, claim.id, owner_hash=OWNER_HASH)
    standing = (await list_standing(db, [terminal.id]))[terminal.id]
    assert (standing.over, standing.owners, dict(standing.watchers)) == ("the seat has ended", frozenset(), {})
    assert await list_watches(db, claim.id) == []
    with pytest.raises(Conflict):
        await request_watch(db, claim.id, "kim", may_type=False, actor=Actor.admin("kim"))


@pytest.mark.parametrize("does", ["dials in", "boots again"])
async def test_an_agent_that_comes_back_while_its_seat_ends_holds_nobody_up(db: Database, claim, does: str) -> None:
    terminal = await request_terminal(db, claim.id, actor=OWNER)
    token = "a token that is known"
    async with db.transaction() as session:
        await session.execute(update(Enrolment).values(agent_token_hash=hash_token(token)))
    comings = {
        "dials in": lambda: record_connected(db, claim.vm_id, terminal.id, "user"),
        "boots again": lambda: announce_boot(db, token, hostname="lab-m0", boot_id="boot-2", agent_version="1"),
    }
    async with db.transaction() as ending:
        await ending.get(Vm, claim.vm_id, with_for_update=True)
        coming = asyncio.create_task(comings[does]())
        await until(lambda: somebody_waits_for_a_lock(ending), every_s=0.01)
        await ending.execute(select(Terminal).where(Terminal.id == terminal.id).with_for_update(nowait=True))
    await coming


async def somebody_waits_for_a_lock(session: AsyncSession) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    return bool(await session.scalar(text(query)))


async def test_only_a_browser_that_holds_the_seat_agrees_to_or_ends_a_watch(db: Database, claim) -> None:
    watch = await request_watch(db, claim.id, "kim", may_type=True, actor=Actor.admin("kim"))
    for act in (
        agree_to_watch(db, claim.id, watch.id, may_type=True, owner_hash=OTHER_HASH, actor=OWNER),
        end_watch(db, claim.id, watch.id, owner_hash=OTHER_HASH, actor=OWNER),
        # What was read as "watch" is not agreed to as "help".
        agree_to_watch(db, claim.id, watch.id, may_type=False, owner_hash=OWNER_HASH, actor=OWNER),
        end_watch(db, claim.id + 1, watch.id, actor=ADMIN),
    ):
        with pytest.raises(NotFound):
            await act
    assert (await list_watches(db, claim.id))[0].agreed_at is None


async def test_a_new_agent_process_ends_the_terminals_of_the_former(db: Database) -> None:
    await create_pool(db, "own", PoolSpec(terminal=True), actor=ADMIN)
    (token,) = await create_enrolments(db, "own", 1, actor=ADMIN)
    enrolled = await announce_boot(db, token, hostname="own-1", boot_id="boot-1", agent_version="1")
    from backend.services.enrolments import authenticate_agent
    from backend.services.heartbeats import record_heartbeats
    from tests.services.worlds import report

    assert enrolled.agent_token
    agent = await authenticate_agent(db, enrolled.agent_token)
    await record_heartbeats(db, [report(db, agent.vm_id, agent.enrolment_id)])
    found = (await request_claim(db, "own", "ada@lab.org", owner_hash=OWNER_HASH)).claim
    await obey(db, agent.vm_id)
    await request_terminal(db, found.id, actor=OWNER)
    # The same boot: only the agent was started again.
    await announce_boot(db, enrolled.agent_token, hostname="own-1", boot_id="boot-1", agent_version="1")
    assert await list_terminals(db, found.id) == []


async def test_local_machines_offer_terminals_only_while_the_server_listens_on_loopback(db: Database) -> None:
    here, everywhere = PoolSpec(terminal=True), PoolSpec(terminal=True, is_loopback=False)
    with pytest.raises(InvalidInput, match="for its own computer alone"):
        await create_pool(db, "lab", everywhere, actor=ADMIN)
    pool = await create_pool(db, "lab", here, actor=ADMIN)
    with pytest.raises(InvalidInput, match="for its own computer alone"):
        await update_pool(db, "lab", everywhere, actor=ADMIN)
    check_host("127.0.0.1", [], None)
    with pytest.raises(Conflict, match=r"^0\.0\.0\.0: .*'lab'"):
        check_host("0.0.0.0", [pool], None)
    with pytest.raises(Conflict, match=r"pool\.default\.terminal=false"):
        check_host("0.0.0.0", [], here)
    closed = await set_pool_open(db, "lab", is_open=False, actor=ADMIN)
    check_host("0.0.0.0", [closed], None)
    with pytest.raises(InvalidInput, match="for its own computer alone"):
        await set_pool_open(db, "lab", is_open=True, actor=ADMIN, is_loopback=False)


@given(st.lists(st.tuples(st.integers(0, 3 * KEPT), st.integers(1, KEPT)), min_size=1, max_size=12))
def test_output_is_what_was_said_from_some_offset_on_whatever_is_said_twice_or_left_out(
    frames: list[tuple[int, int]],
) -> None:
    said = bytes(range(256)) * (4 * KEPT // 256 + 1)
    output = Output()
    for offset, length in frames:
        before = output.last
        output.add(offset, said[offset : offset + length])
        assert output.last == max(before, offset + length)
        assert output.last - output.first <= KEPT
        assert output.read(output.first, 2 * KEPT) == said[output.first : output.last]
