"""Whose seat it is: keys, browsers, moves; and nobody acts on the seat of another."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, NotFound, SeatExists, Throttled, Unauthenticated
from backend.keys import KeyRing, new_key
from backend.services.actor import Actor
from backend.services.claim_times import extend_claim, touch_claim
from backend.services.claims import get_claim, list_claims, release_own_claim, request_claim
from backend.services.codes import ALPHABET
from backend.services.crd import get_crd, get_pin, request_crd
from backend.services.events import list_events
from backend.services.guesses import GUESSES
from backend.services.heartbeats import record_heartbeats
from backend.services.holders import Holder
from backend.services.pools import get_pool, spec_of, update_pool
from backend.services.seat_browsers import list_browsers
from backend.services.seat_keys import find_seat_by_key, hash_key, open_seat_by_key, reissue_key, renew_own_key
from backend.services.seat_moves import request_move
from backend.services.seat_sign_outs import sign_out_browser, sign_out_others
from backend.services.terminal_watches import agree_to_watch, end_watch, request_watch
from backend.services.vms import request_repair
from backend.states import ClaimStatus
from tests.conftest import Clock
from tests.crd.pastes import LINE
from tests.services.test_claims import claim, owner
from tests.services.worlds import ADMIN, make_machines, obey, report, status_of

KEYS = KeyRing([new_key()])


async def claim_with_key(db: Database, number: int = 1) -> tuple[int, str]:
    made = await request_claim(db, "lab", f"p{number}@lab.org", owner_hash=owner(number))
    assert made.seat_key is not None
    return made.claim.id, made.seat_key


async def test_a_seat_key_opens_the_seat_in_another_browser_and_each_use_is_an_event(db: Database) -> None:
    await make_machines(db, 1)
    claim_id, key = await claim_with_key(db)
    assert len(key) == 19 and set(key) <= {*ALPHABET, "-"}
    opened = await open_seat_by_key(db, key.lower().replace("-", " "), owner_hash=owner(2), address="192.0.2.7")
    assert opened.id == claim_id
    assert [each.id for each in await list_claims(db, owner_hash=owner(2))] == [claim_id]
    await open_seat_by_key(db, key, owner_hash=owner(3), address="192.0.2.8")
    await find_seat_by_key(db, key, address="192.0.2.9")
    used = [(event.kind, event.address) for event in await list_events(db) if "key" in event.message]
    assert used == [
        ("claim.key_used", "192.0.2.9"),
        ("claim.opened", "192.0.2.8"),
        ("claim.opened", "192.0.2.7"),
    ]


async def test_only_the_hash_of_a_key_is_stored_and_no_event_holds_it(db: Database) -> None:
    await make_machines(db, 1)
    claim_id, key = await claim_with_key(db)
    key2 = await reissue_key(db, claim_id, actor=ADMIN)
    async with db.transaction() as session:
        stored = str(
            (
                await session.execute(text("SELECT claims::text FROM claims UNION ALL SELECT events::text FROM events"))
            ).all()
        )
    for secret in (key, key2, key.replace("-", ""), key2.replace("-", "")):
        assert secret not in stored


async def test_a_key_made_anew_kills_the_old_one(db: Database) -> None:
    await make_machines(db, 1)
    claim_id, first = await claim_with_key(db)
    second = await reissue_key(db, claim_id, actor=ADMIN)
    third = await renew_own_key(db, claim_id, Holder(owner_hash=owner(1)))
    for dead in (first, second):
        with pytest.raises(Unauthenticated):
            await open_seat_by_key(db, dead, owner_hash=owner(2))
    assert (await open_seat_by_key(db, third, owner_hash=owner(2))).id == claim_id


async def test_a_key_ends_with_its_seat(db: Database) -> None:
    await make_machines(db, 1)
    claim_id, key = await claim_with_key(db)
    await release_own_claim(db, claim_id, key_hash=hash_key(key))
    assert (await get_claim(db, claim_id)).status is ClaimStatus.RELEASED
    with pytest.raises(Unauthenticated):
        await find_seat_by_key(db, key, address=None)
    with pytest.raises(Conflict):
        await reissue_key(db, claim_id, actor=ADMIN)


async def test_guessing_keys_is_stopped_and_the_right_one_still_opens(db: Database) -> None:
    await make_machines(db, 1)
    _, key = await claim_with_key(db)
    for number in range(GUESSES.attempts):
        with pytest.raises(Unauthenticated):
            await find_seat_by_key(db, f"{number:016d}", address="192.0.2.7")
    with pytest.raises(Throttled) as refusal:
        await open_seat_by_key(db, "0" * 16, owner_hash=owner(5), address="192.0.2.7")
    assert refusal.value.retry_after_s
    await open_seat_by_key(db, key, owner_hash=owner(5), address="192.0.2.7")


async def test_a_browser_that_opened_a_seat_by_key_gets_no_second_one(db: Database) -> None:
    await make_machines(db, 3)
    claim_id, key = await claim_with_key(db)
    await open_seat_by_key(db, key, owner_hash=owner(2))
    again = await request_claim(db, "lab", "other@lab.org", owner_hash=owner(2))
    assert (again.claim.id, again.created) == (claim_id, False)
    await claim(db, 3)
    with pytest.raises(Conflict):
        await open_seat_by_key(db, key, owner_hash=owner(3))


async def test_who_knows_only_the_e_mail_learns_only_that_there_is_a_seat_and_not_often(db: Database) -> None:
    await make_machines(db, 2)
    await claim(db, 1)
    for number in range(GUESSES.attempts):
        with pytest.raises(SeatExists):
            await request_claim(db, "lab", "p1@lab.org", owner_hash=owner(50 + number), address="192.0.2.7")
    with pytest.raises(Throttled):
        await request_claim(db, "lab", "p1@lab.org", owner_hash=owner(99), address="192.0.2.7")
    assert (await request_claim(db, "lab", "new@lab.org", owner_hash=owner(98), address="192.0.2.7")).created


async def test_a_browser_signed_out_can_do_nothing_more(db: Database, clock: Clock) -> None:
    await make_machines(db, 2)
    spec = replace(spec_of(await get_pool(db, "lab")), terminal=True, crd=True, idle_limit_s=3_600)
    await update_pool(db, "lab", spec, actor=ADMIN)
    claim_id, key = await claim_with_key(db)
    await obey(db, (await get_claim(db, claim_id)).vm_id or 0)
    await open_seat_by_key(db, key, owner_hash=owner(2))
    watch = await request_watch(db, claim_id, "kim", may_type=True, actor=ADMIN)
    me = Actor.researcher("p1@lab.org")
    assert await sign_out_others(db, claim_id, Holder(owner_hash=owner(2))) == 1
    for act in (
        lambda held: release_own_claim(db, claim_id, owner_hash=held.owner_hash),
        lambda held: extend_claim(db, claim_id, held),
        lambda held: request_move(db, claim_id, held),
        lambda held: renew_own_key(db, claim_id, held),
        lambda held: sign_out_others(db, claim_id, held),
        lambda held: request_crd(db, KEYS, claim_id, LINE, held),
        lambda held: get_crd(db, claim_id, held),
        lambda held: get_pin(db, KEYS, claim_id, held),
        lambda held: agree_to_watch(db, claim_id, watch.id, may_type=True, owner_hash=held.owner_hash, actor=me),
        lambda held: end_watch(db, claim_id, watch.id, owner_hash=held.owner_hash, actor=me),
    ):
        with pytest.raises(NotFound):
            await act(Holder(owner_hash=owner(1)))
    # Nor does it keep a seat in use that nobody uses.
    before = (await get_claim(db, claim_id)).last_active_at
    clock.advance(600)
    await touch_claim(db, claim_id, owner_hash=owner(1))
    assert (await get_claim(db, claim_id)).last_active_at == before
    await touch_claim(db, claim_id, owner_hash=owner(2))
    assert (await get_claim(db, claim_id)).last_active_at != before
    assert await list_claims(db, owner_hash=owner(1)) == []
    (left,) = await list_browsers(db, claim_id, owner_hash=owner(2))
    assert left.is_this
    # The seat's former browser is a stranger now: it may claim as one, but not under that e-mail.
    with pytest.raises(SeatExists):
        await claim(db, 1)
    await sign_out_browser(db, claim_id, left.id, Holder(key_hash=hash_key(key)))
    assert await list_browsers(db, claim_id, owner_hash=None) == []


async def test_a_seat_moves_to_the_next_free_machine_and_the_old_one_is_cleaned(db: Database) -> None:
    first, second = await make_machines(db, 2)
    claim_id, key = await claim_with_key(db)
    await obey(db, first.vm_id)
    moved = await request_move(db, claim_id, Holder(owner_hash=owner(1)))
    assert (moved.hostname, moved.status) == ("lab-m1", ClaimStatus.PREPARING)
    assert await status_of(db, "lab-m0") == "cleaning"
    assert await obey(db, second.vm_id) == ["prepare_session"]
    assert (await get_claim(db, claim_id)).status is ClaimStatus.ACTIVE
    assert (await find_seat_by_key(db, key, address=None)).id == claim_id
    with pytest.raises(Conflict):
        await request_move(db, claim_id, Holder(owner_hash=owner(1)))
    assert await obey(db, first.vm_id) == ["end_session"]
    assert await status_of(db, "lab-m0") == "available"


async def test_giving_back_after_a_move_leaves_neither_machine_behind(db: Database) -> None:
    first, second = await make_machines(db, 2)
    claim_id, _ = await claim_with_key(db)
    await request_move(db, claim_id, Holder(owner_hash=owner(1)))
    await release_own_claim(db, claim_id, owner_hash=owner(1))
    for machine in (first, second):
        assert (await obey(db, machine.vm_id))[-1] == "end_session"
    assert [await status_of(db, f"lab-m{n}") for n in (0, 1)] == ["available", "available"]


async def test_a_machine_that_a_seat_came_back_to_is_not_clean_by_its_first_cleaning(db: Database) -> None:
    first, second = await make_machines(db, 2)
    claim_id, _ = await claim_with_key(db)
    for machine, other in ((second, first), (first, second)):
        await obey(db, other.vm_id)
        await request_move(db, claim_id, Holder(owner_hash=owner(1)))
        await obey(db, other.vm_id)
        await obey(db, machine.vm_id)
    assert (await get_claim(db, claim_id)).hostname == "lab-m0"
    await release_own_claim(db, claim_id, owner_hash=owner(1))
    await obey(db, first.vm_id, succeeded=False)
    # The session of the second stay may still be there: it must be removed first, however often that fails.
    for succeeded, status in ((False, "failed"), (False, "failed"), (True, "available")):
        await request_repair(db, ["lab-m0"], actor=ADMIN)
        async with db.transaction() as session:
            await session.execute(text("UPDATE vms SET facts = '{}'"))  # as its boot would when it announces itself
        assert "end_session" in await obey(db, first.vm_id, succeeded=succeeded)
        await record_heartbeats(db, [report(db, first.vm_id, first.enrolment_id, boot_id="boot-2")])
        assert await status_of(db, "lab-m0") == status


async def test_two_who_move_at_once_to_the_last_free_machine_are_one_who_moves(db: Database) -> None:
    await make_machines(db, 3)
    ids = [(await claim(db, number)).id for number in (1, 2)]
    outcomes = await asyncio.gather(
        *(request_move(db, claim_id, Holder(owner_hash=owner(n))) for n, claim_id in zip((1, 2), ids, strict=True)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, Conflict) for each in outcomes) == 1
    hostnames = [(await get_claim(db, claim_id)).hostname for claim_id in ids]
    assert len(set(hostnames)) == 2
