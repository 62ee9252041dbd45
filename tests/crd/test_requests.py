"""What a seat's holder may ask, what is kept of it and for how long, and what an agent's answers lead to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, NotFound
from backend.keys import KeyRing, new_key
from backend.services.actor import Actor
from backend.services.claims import get_claim, release_own_claim, request_claim
from backend.services.commands import expire_commands, list_commands_for_agent, record_command_result
from backend.services.crd import get_crd, get_pin, open_payload, request_crd
from backend.services.crd_results import record_command_progress
from backend.services.events import list_events
from backend.services.holders import Holder
from backend.services.pools import get_pool, spec_of, update_pool
from backend.services.views import ClaimView
from backend.states import CrdStatus
from tests.conftest import Clock
from tests.crd.pastes import CODE, HOSTILE, LINE, with_code
from tests.services.worlds import ADMIN, make_machines, obey

ADA, EVE = Holder(owner_hash=b"a" * 32, address="192.0.2.1"), Holder(owner_hash=b"e" * 32)
AGENT = Actor.agent("lab-m0")
KEYS = KeyRing([new_key()])


async def sit_down(
    db: Database, *, offers_crd: bool = True, holder: Holder = ADA, email: str = "ada@lab.org"
) -> ClaimView:
    """An active seat, in a pool that offers Chrome Remote Desktop."""
    await update_pool(db, "lab", replace(spec_of(await get_pool(db, "lab")), crd=offers_crd), actor=ADMIN)
    claim = (await request_claim(db, "lab", email, owner_hash=holder.owner_hash)).claim
    assert claim.vm_id is not None
    await obey(db, claim.vm_id)
    return await get_claim(db, claim.id)


async def rows(db: Database, query: str) -> list[tuple]:
    async with db.transaction() as session:
        return [tuple(row) for row in await session.execute(text(query))]


async def answer(db: Database, claim: ClaimView, *, succeeded: bool, detail: str = "", **data: object) -> None:
    """The agent's answer to the one open command."""
    (command,) = await list_commands_for_agent(db, claim.vm_id or 0)
    await record_command_result(
        db, claim.vm_id or 0, command.id, succeeded=succeeded, detail=detail, data=data, actor=AGENT
    )


async def test_code_and_pin_are_sealed_until_they_reach_the_agent_and_forgotten_with_the_result(db: Database) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db)
    view = await request_crd(db, KEYS, claim.id, LINE, ADA)
    assert view.status is CrdStatus.WAITING
    pin = await get_pin(db, KEYS, claim.id, ADA)
    assert len(pin) == 8
    assert pin.isdecimal()
    stored = str(await rows(db, "SELECT payload FROM commands")) + str(await rows(db, "SELECT * FROM claims"))
    assert "sealed" in stored
    assert await rows(db, "SELECT crd_command FROM vms") == [("set",)]
    (command,) = await list_commands_for_agent(db, claim.vm_id or 0)
    assert open_payload(KEYS, command) == {"claim_id": claim.id, "code": CODE, "pin": pin}
    assert "code" not in open_payload(KeyRing([new_key()]), command)
    await answer(db, claim, succeeded=True, host_id="5ca1ab1e-00")
    stored += str(await rows(db, "SELECT payload FROM commands")) + str(await rows(db, "SELECT * FROM events"))
    assert CODE not in stored
    assert pin not in stored
    assert await rows(db, "SELECT payload FROM commands WHERE kind = 'start_crd'") == [({"claim_id": claim.id},)]
    ready = await get_claim(db, claim.id)
    assert ready.crd_status is CrdStatus.READY
    assert ready.crd_link == "https://remotedesktop.google.com/access/session/5ca1ab1e-00"
    assert await get_pin(db, KEYS, claim.id, ADA) == pin


async def test_every_end_of_a_command_forgets_the_code_and_the_claim_s_end_the_pin(db: Database, clock: Clock) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db)
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    clock.advance(121)
    assert await expire_commands(db) == 1
    late = await get_claim(db, claim.id)
    assert late.crd_status is CrdStatus.FAILED
    assert "did not answer in time" in (late.crd_detail or "")
    await request_crd(db, KEYS, claim.id, with_code("4/0Another_code"), ADA)
    await release_own_claim(db, claim.id, owner_hash=ADA.owner_hash or b"")
    assert await rows(db, "SELECT count(*) FROM commands WHERE payload ? 'sealed'") == [(0,)]
    assert await rows(db, "SELECT crd_pin, vms.crd_command FROM claims, vms") == [(None, None)]
    with pytest.raises(NotFound):
        await get_pin(db, KEYS, claim.id, ADA)


async def test_a_failure_is_told_with_its_reason_and_the_next_try_has_the_same_pin(db: Database) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db)
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    pin = await get_pin(db, KEYS, claim.id, ADA)
    with pytest.raises(Conflict, match="on its way already"):
        await request_crd(db, KEYS, claim.id, LINE, ADA)
    await answer(db, claim, succeeded=False, detail="Google did not take the code.")
    assert (await get_crd(db, claim.id, ADA)).detail == "Google did not take the code."
    assert await rows(db, "SELECT crd_command FROM vms") == [(None,)]
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    assert await get_pin(db, KEYS, claim.id, ADA) == pin
    kinds = [event.kind for event in await list_events(db) if event.kind.startswith("crd.")]
    assert kinds == ["crd.requested", "crd.failed", "crd.requested"]


async def test_steps_show_while_the_command_stays_open_and_count_no_more_after_its_end(db: Database) -> None:
    first, second = await make_machines(db, 2)
    claim = await sit_down(db)
    other = next(each.vm_id for each in (first, second) if each.vm_id != claim.vm_id)
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    (command,) = await list_commands_for_agent(db, claim.vm_id or 0)
    for step in ("one", "two"):
        await record_command_progress(db, claim.vm_id or 0, command.id, detail=step, actor=AGENT)
        now = await get_claim(db, claim.id)
        assert (now.crd_status, now.crd_detail) == (CrdStatus.STARTING, step)
    with pytest.raises(NotFound):
        await record_command_progress(db, other, command.id, detail="of another machine", actor=AGENT)
    assert [each.id for each in await list_commands_for_agent(db, claim.vm_id or 0)] == [command.id]
    await answer(db, claim, succeeded=True, host_id="https://evil.example/")
    await record_command_progress(db, claim.vm_id or 0, command.id, detail="late", actor=AGENT)
    now = await get_claim(db, claim.id)
    assert now.crd_status is CrdStatus.READY
    # Which host it is comes from the machine; where the link leads does not.
    assert now.crd_link == "https://remotedesktop.google.com/access"
    assert [event.kind for event in await list_events(db) if event.kind == "crd.starting"] == ["crd.starting"]


async def test_only_the_holder_of_an_active_seat_in_a_pool_that_offers_it_may_ask(db: Database) -> None:
    await make_machines(db, 2)
    claim, eves = await sit_down(db), await sit_down(db, holder=EVE, email="eve@lab.org")
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    for ask in (
        request_crd(db, KEYS, claim.id, with_code("4/0Code_of_eve"), EVE),
        get_pin(db, KEYS, claim.id, EVE),
        get_crd(db, claim.id, EVE),
        get_pin(db, KEYS, claim.id, Holder()),
    ):
        with pytest.raises(NotFound):
            await ask
    with pytest.raises(NotFound, match="has no PIN"):
        await get_pin(db, KEYS, eves.id, EVE)
    await release_own_claim(db, claim.id, owner_hash=ADA.owner_hash or b"")
    with pytest.raises(Conflict, match="once your machine is ready"):
        await request_crd(db, KEYS, claim.id, LINE, ADA)


async def test_a_pool_that_does_not_offer_it_takes_no_code(db: Database) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db, offers_crd=False)
    with pytest.raises(Conflict, match="does not offer"):
        await request_crd(db, KEYS, claim.id, LINE, ADA)
    assert await rows(db, "SELECT count(*) FROM commands WHERE kind = 'start_crd'") == [(0,)]


async def test_a_refused_paste_changes_nothing(db: Database) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db)
    before = await rows(db, "SELECT count(*) FROM commands"), await rows(db, "SELECT count(*) FROM events")
    for paste, _ in HOSTILE.values():
        with pytest.raises(InvalidInput):
            await request_crd(db, KEYS, claim.id, paste, ADA)
    assert (await rows(db, "SELECT count(*) FROM commands"), await rows(db, "SELECT count(*) FROM events")) == before
    assert await get_claim(db, claim.id) == claim


async def test_a_pin_that_no_key_opens_any_more_is_made_anew(db: Database) -> None:
    await make_machines(db, 1)
    claim = await sit_down(db)
    await request_crd(db, KEYS, claim.id, LINE, ADA)
    await answer(db, claim, succeeded=False, detail="no")
    fresh = KeyRing([new_key()])
    with pytest.raises(NotFound):
        await get_pin(db, fresh, claim.id, ADA)
    await request_crd(db, fresh, claim.id, LINE, ADA)
    (command,) = await list_commands_for_agent(db, claim.vm_id or 0)
    assert open_payload(fresh, command)["pin"] == await get_pin(db, fresh, claim.id, ADA)
