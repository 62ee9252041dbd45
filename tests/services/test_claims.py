from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound, SeatExists, Unauthenticated
from backend.services.claims import (
    get_claim,
    get_position,
    list_claims,
    open_seat_link,
    release_own_claim,
    release_vms,
    request_claim,
)
from backend.services.emails import check_email
from backend.services.pools import PoolSpec, ensure_pool, set_pool_open
from backend.services.sessions import LINE_LOCK
from backend.services.vms import get_vm
from backend.states import ClaimStatus, VmStatus
from tests.services.worlds import ADMIN, make_machines, obey, status_of


def owner(number: int) -> bytes:
    return number.to_bytes(32)


async def claim(db: Database, number: int, pool: str = "lab"):
    return (await request_claim(db, pool, f"p{number}@lab.org", owner_hash=owner(number))).claim


async def test_a_claim_holds_a_machine_and_tells_its_agent(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    mine = await claim(db, 1)
    assert mine.status is ClaimStatus.PREPARING
    assert mine.hostname == "lab-m0"
    assert await status_of(db, "lab-m0") == "in-use"
    assert await obey(db, machine.vm_id) == ["prepare_session"]
    assert (await get_claim(db, mine.id)).status is ClaimStatus.ACTIVE


async def test_two_hundred_people_at_once_get_a_machine_each_or_a_place_in_line(db: Database) -> None:
    await make_machines(db, 40)
    claims = await asyncio.gather(*(claim(db, number) for number in range(200)))
    now = await list_claims(db, ids=[each.id for each in claims])
    held = [each.vm_id for each in now if each.vm_id]
    waiting = sorted(each.id for each in now if each.status is ClaimStatus.WAITING)
    assert len(held) == len(set(held)) == 40
    assert len(waiting) == 160
    assert [await get_position(db, each) for each in waiting] == list(range(1, 161))


async def test_ten_clicks_of_one_browser_are_one_claim(db: Database) -> None:
    await make_machines(db, 20)
    results = await asyncio.gather(*(request_claim(db, "lab", "ada@lab.org", owner_hash=owner(1)) for _ in range(10)))
    assert len({each.claim.id for each in results}) == 1
    assert sum(each.created for each in results) == 1


async def test_a_double_click_in_a_crowd_takes_no_machine_from_those_behind(db: Database) -> None:
    await make_machines(db, 4)
    people = (1, 2, 2, 2, 3, 4)
    claims = await asyncio.gather(*(claim(db, number) for number in people))
    assert len({each.id for each in claims}) == len({each.hostname for each in claims}) == 4
    # First come, first served: the machine that is ready for longest goes to the first.
    assert [claims[people.index(number)].hostname for number in (1, 2)] == ["lab-m0", "lab-m1"]
    assert all(each.status is ClaimStatus.PREPARING for each in claims)


async def test_an_email_is_no_proof_of_being_the_same_person(db: Database) -> None:
    await make_machines(db, 2)
    await claim(db, 1)
    with pytest.raises(SeatExists) as refusal:
        await request_claim(db, "lab", "P1@LAB.org", owner_hash=owner(2))
    assert "lab-m" not in refusal.value.message


async def test_the_same_idempotency_key_gets_the_same_seat(db: Database) -> None:
    await make_machines(db, 3)
    first, second = [
        await request_claim(db, "lab", "ada@lab.org", owner_hash=None, idempotency_key="k-1") for _ in range(2)
    ]
    assert first.claim.id == second.claim.id
    assert (first.created, second.created) == (True, False)


async def test_the_line_moves_in_order_when_machines_come_back(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    first, second, third = [await claim(db, number) for number in range(3)]
    await obey(db, machine.vm_id)
    await release_own_claim(db, first.id, owner_hash=owner(0))
    assert await status_of(db, "lab-m0") == "cleaning"
    assert await get_position(db, second.id) == 1
    assert await obey(db, machine.vm_id) == ["end_session"]
    assert (await get_claim(db, second.id)).hostname == "lab-m0"
    assert await get_position(db, third.id) == 1


async def test_a_machine_is_offered_again_only_after_its_session_was_removed(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    mine = await claim(db, 1)
    await obey(db, machine.vm_id)
    await release_own_claim(db, mine.id, owner_hash=owner(1))
    assert await obey(db, machine.vm_id, succeeded=False) == ["end_session"]
    vm = await get_vm(db, "lab-m0")
    assert (vm.status, vm.is_unclean) == (VmStatus.FAILED, True)


async def test_who_got_a_machine_that_fails_keeps_the_place_in_line(db: Database) -> None:
    first, _ = await make_machines(db, 2)
    mine = await claim(db, 1)
    vm_id = mine.vm_id
    assert vm_id is not None
    await obey(db, vm_id, succeeded=False)
    now = await get_claim(db, mine.id)
    assert now.status is ClaimStatus.PREPARING
    assert now.vm_id not in (None, vm_id)
    assert first.vm_id == vm_id


async def test_nobody_gives_back_the_seat_of_another(db: Database) -> None:
    await make_machines(db, 1)
    mine = await claim(db, 1)
    with pytest.raises(NotFound):
        await release_own_claim(db, mine.id, owner_hash=owner(2))
    assert (await get_claim(db, mine.id)).status is ClaimStatus.PREPARING


async def test_an_admin_takes_a_seat_back(db: Database) -> None:
    await make_machines(db, 1)
    mine = await claim(db, 1)
    assert await release_vms(db, ["lab-m0"], actor=ADMIN) == ["lab-m0"]
    assert (await get_claim(db, mine.id)).status is ClaimStatus.RELEASED
    with pytest.raises(Conflict):
        await release_vms(db, ["lab-m0"], actor=ADMIN)


async def test_a_seat_link_opens_once(db: Database) -> None:
    await make_machines(db, 1)
    mine = await request_claim(db, "lab", "ada@lab.org", owner_hash=None)
    assert mine.link is not None
    assert (await open_seat_link(db, mine.link, owner_hash=owner(7))).id == mine.claim.id
    with pytest.raises(Unauthenticated):
        await open_seat_link(db, mine.link, owner_hash=owner(8))
    assert [each.id for each in await list_claims(db, owner_hash=owner(7))] == [mine.claim.id]


async def test_a_seat_link_expires(db: Database, clock) -> None:
    await make_machines(db, 1)
    mine = await request_claim(db, "lab", "ada@lab.org", owner_hash=None)
    assert mine.link is not None
    clock.advance(25 * 3600)
    with pytest.raises(Unauthenticated):
        await open_seat_link(db, mine.link, owner_hash=owner(7))


async def test_a_claim_that_is_kept_is_told_even_when_the_line_cannot_be_served(
    db: Database, database_url: str
) -> None:
    impatient = Database(database_url, statement_timeout_s=1)
    pool = await ensure_pool(impatient, "lab", PoolSpec(), actor=ADMIN)
    async with db.transaction() as session:
        await session.execute(
            text("SELECT pg_advisory_xact_lock(:space, :pool)"), {"space": LINE_LOCK, "pool": pool.id}
        )
        mine = await request_claim(impatient, "lab", "ada@lab.org", owner_hash=None)
    assert (mine.created, mine.position, mine.claim.status) == (True, 1, ClaimStatus.WAITING)
    assert mine.link
    await impatient.close()


async def test_a_closed_or_unknown_pool_takes_no_claims(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(), actor=ADMIN)
    await set_pool_open(db, "lab", is_open=False, actor=ADMIN)
    with pytest.raises(Conflict):
        await claim(db, 1)
    with pytest.raises(NotFound):
        await claim(db, 1, pool="nowhere")


@given(st.text(max_size=300))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_typed_as_an_email_is_taken_or_refused_with_words(typed: str) -> None:
    try:
        taken = check_email(typed)
    except InvalidInput as refusal:
        assert "ada@example.org" in refusal.message
    else:
        assert taken.count("@") == 1
        assert len(taken) <= 254
        assert not any(character in taken for character in "\x00\n\r<>\"' ")
