"""Who may claim: by code, by personal link, by the organisation's word; and nobody else."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from backend.db.engine import Database
from backend.errors import Forbidden, InvalidInput, SeatExists, Throttled
from backend.keys import KeyRing, new_key
from backend.services.admission import Proof, set_access
from backend.services.claims import list_claims, request_claim
from backend.services.events import list_events
from backend.services.guesses import GUESSES
from backend.services.join_codes import CodeLimits, find_code, find_pool_by_code, limit_code, rotate_code
from backend.services.roster_text import RosterLine
from backend.services.rosters import (
    import_roster,
    list_roster,
    make_link,
    reissue_link,
    remove_people,
)
from backend.services.seat_browsers import list_browsers
from backend.states import Access
from tests.services.test_claims import owner
from tests.services.worlds import ADMIN, make_machines

SERVER = "https://lab.example.org"


async def make_coded(db: Database, machines: int = 2, **limits: object) -> str:
    """A pool with a join code; returns the code."""
    await make_machines(db, machines)
    await set_access(db, "lab", Access.CODE, actor=ADMIN)
    return (await rotate_code(db, "lab", CodeLimits(**limits), actor=ADMIN)).code  # type: ignore[arg-type]


async def claim(db: Database, number: int, **proof: object):
    email = f"p{number}@lab.org"
    return await request_claim(db, "lab", email, owner_hash=owner(number), address="192.0.2.1", proof=Proof(**proof))  # type: ignore[arg-type]


async def test_a_code_is_taken_however_it_is_typed(db: Database) -> None:
    code = await make_coded(db, 3)
    spelt = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    for number, typed in enumerate((code, code.replace("-", ""), f"  {spelt} ")):
        assert (await claim(db, number, code=typed)).created
    assert (await find_code(db, 1)).uses == 3


async def test_without_the_code_nobody_gets_in_nor_learns_who_is_in(db: Database) -> None:
    code = await make_coded(db)
    await claim(db, 1, code=code)
    for wrong, said in ((None, "code_needed"), ("  ", "code_needed"), ("AAAA-AAAA", "wrong_code")):
        for email in ("p1@lab.org", "new@lab.org"):
            with pytest.raises(Forbidden) as refusal:
                await request_claim(db, "lab", email, owner_hash=owner(9), proof=Proof(code=wrong))
            assert refusal.value.error_code == said
    with pytest.raises(SeatExists):
        await request_claim(db, "lab", "p1@lab.org", owner_hash=owner(9), proof=Proof(code=code))


async def test_the_code_of_another_pool_opens_nothing_here(db: Database) -> None:
    await make_coded(db)
    await make_machines(db, 1, pool="other")
    await set_access(db, "other", Access.CODE, actor=ADMIN)
    theirs = (await rotate_code(db, "other", CodeLimits(), actor=ADMIN)).code
    with pytest.raises(Forbidden):
        await claim(db, 1, code=theirs)


async def test_a_rotated_code_is_dead_and_seats_claimed_with_it_stay(db: Database) -> None:
    old = await make_coded(db)
    mine = await claim(db, 1, code=old)
    new = (await rotate_code(db, "lab", CodeLimits(), actor=ADMIN)).code
    with pytest.raises(Forbidden):
        await claim(db, 2, code=old)
    assert await find_pool_by_code(db, new, address=None) == ("lab", new)
    # The browser that holds a seat comes back without any code.
    assert (await claim(db, 1)).claim.id == mine.claim.id


async def test_a_code_has_a_start_and_an_end(db: Database, clock) -> None:
    start = db.now() + timedelta(hours=1)
    code = await make_coded(db, 2, starts_at=start, ends_at=start + timedelta(hours=1))
    with pytest.raises(Forbidden, match="valid from"):
        await claim(db, 1, code=code)
    clock.advance(3_700)
    assert (await claim(db, 1, code=code)).created
    clock.advance(3_600)
    with pytest.raises(Forbidden, match="valid until"):
        await claim(db, 2, code=code)
    for senseless in (CodeLimits(ends_at=db.now()), CodeLimits(max_uses=0), CodeLimits(start, start)):
        with pytest.raises(InvalidInput):
            await limit_code(db, "lab", senseless, actor=ADMIN)


async def test_of_sixty_claims_at_once_a_code_for_seven_lets_seven_in(db: Database) -> None:
    code = await make_coded(db, 10, max_uses=7)
    answers = await asyncio.gather(*(claim(db, number, code=code) for number in range(60)), return_exceptions=True)
    refused = [each for each in answers if isinstance(each, Forbidden)]
    assert (len(answers) - len(refused), len(refused)) == (7, 53)
    assert {each.error_code for each in refused} == {"code_not_valid"}
    assert len(await list_claims(db, only_open=True)) == (await find_code(db, 1)).uses == 7


async def test_ten_clicks_use_a_code_once(db: Database) -> None:
    code = await make_coded(db, 3, max_uses=1)
    results = await asyncio.gather(*(claim(db, 1, code=code) for _ in range(10)))
    assert len({each.claim.id for each in results}) == 1
    assert [each.created for each in results].count(True) == 1
    assert sum(each.seat_key is not None for each in results) == 1
    assert (await find_code(db, 1)).uses == 1


async def test_guessing_a_code_is_stopped_and_the_right_one_of_300_neighbours_is_not(db: Database) -> None:
    code = await make_coded(db)

    async def guess(number: int) -> Exception | None:
        try:
            await claim(db, number, code=f"AAAA-{number:04d}")
        except Forbidden as refusal:
            return refusal
        except Throttled as refusal:
            return refusal
        return None

    # All at once, so that none of them can hide behind another.
    refusals = await asyncio.gather(*(guess(number) for number in range(100, 140)))
    stopped = [each for each in refusals if isinstance(each, Throttled)]
    assert len(refusals) - len(stopped) == GUESSES.attempts < 20
    assert all(0 < each.retry_after_s <= GUESSES.window_s for each in stopped)
    results = await asyncio.gather(*(claim(db, number, code=code) for number in range(60)))
    assert all(each.created for each in results)
    with pytest.raises(Throttled):
        await find_pool_by_code(db, "BBBB-BBBB", address="192.0.2.1")
    with pytest.raises(Forbidden):
        await find_pool_by_code(db, "BBBB-BBBB", address="192.0.2.2")


async def make_listed(db: Database, *emails: str) -> KeyRing:
    await make_machines(db, 3)
    await set_access(db, "lab", Access.ROSTER, actor=ADMIN)
    await import_roster(db, "lab", [RosterLine(email, None) for email in emails], actor=ADMIN)
    return KeyRing([new_key()])


async def link_of(db: Database, keys: KeyRing, email: str) -> str:
    (entry,) = [each for each in await list_roster(db, 1) if each.email == email]
    return make_link(keys, SERVER, "lab", entry).partition("?me=")[2]


async def test_a_personal_link_says_who_it_is_and_opens_that_persons_seat_elsewhere(db: Database) -> None:
    keys = await make_listed(db, "ada@lab.org", "bob@lab.org")
    link = await link_of(db, keys, "ada@lab.org")
    first = await claim(db, 1, link=link, keys=keys)
    assert first.claim.email == "ada@lab.org"
    second = await claim(db, 2, link=link, keys=keys)
    assert (second.claim.id, second.created, second.seat_key) == (first.claim.id, False, None)
    assert len(await list_browsers(db, first.claim.id, owner_hash=None)) == 2
    opened = [event for event in await list_events(db) if event.kind == "claim.opened"]
    assert [(each.address, each.message) for each in opened] == [
        ("192.0.2.1", "The seat of ada@lab.org was opened by their personal link")
    ]
    assert (await claim(db, 3, link=await link_of(db, keys, "bob@lab.org"), keys=keys)).claim.id != first.claim.id


async def test_a_personal_link_survives_new_keys_and_dies_when_made_anew_or_removed(db: Database) -> None:
    old = new_key()
    keys = await make_listed(db, "ada@lab.org")
    link = await link_of(db, KeyRing([old]), "ada@lab.org")
    rotated = KeyRing([new_key(), old])
    assert (await claim(db, 1, link=link, keys=rotated)).created
    await reissue_link(db, 1, "ADA@lab.org", actor=ADMIN)
    fresh = await link_of(db, rotated, "ada@lab.org")
    for dead in (link, await link_of(db, keys, "ada@lab.org"), f"{fresh}x", "1.", ".", "9" * 40, "١.x", None):
        with pytest.raises(Forbidden):
            await claim(db, 2, link=dead, keys=rotated)
    assert not (await claim(db, 2, link=fresh, keys=rotated)).created
    assert await remove_people(db, 1, ["ada@lab.org"], actor=ADMIN) == 1
    with pytest.raises(Forbidden):
        await claim(db, 3, link=fresh, keys=rotated)
    # Back on the roster, the former links stay dead, and the seat is still theirs.
    await import_roster(db, "lab", [RosterLine("ada@lab.org", None)], actor=ADMIN)
    with pytest.raises(Forbidden):
        await claim(db, 3, link=fresh, keys=rotated)
    assert not (await claim(db, 3, link=await link_of(db, rotated, "ada@lab.org"), keys=rotated)).created


async def test_a_link_of_one_person_or_pool_proves_no_other(db: Database) -> None:
    keys = await make_listed(db, "ada@lab.org", "bob@lab.org")
    link = await link_of(db, keys, "ada@lab.org")
    number, _, signature = link.partition(".")
    with pytest.raises(Forbidden):
        await claim(db, 1, link=f"{int(number) + 1}.{signature}", keys=keys)
    await make_machines(db, 1, pool="other")
    await set_access(db, "other", Access.ROSTER, actor=ADMIN)
    with pytest.raises(Forbidden):
        await request_claim(db, "other", None, owner_hash=owner(1), proof=Proof(link=link, keys=keys))


async def test_who_typed_a_listed_e_mail_while_the_pool_was_open_is_not_that_person(db: Database) -> None:
    await make_machines(db, 2)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=owner(1))
    await set_access(db, "lab", Access.ROSTER, actor=ADMIN)
    await import_roster(db, "lab", [RosterLine("ada@lab.org", None)], actor=ADMIN)
    keys = KeyRing([new_key()])
    with pytest.raises(SeatExists):
        await claim(db, 2, link=await link_of(db, keys, "ada@lab.org"), keys=keys)


@dataclass
class Employee:
    subject: str
    email: str
    groups: frozenset[str] = field(default_factory=frozenset)


async def test_by_the_organisations_word_the_e_mail_and_the_group_are_what_it_says(db: Database) -> None:
    await make_machines(db, 2)
    await set_access(db, "lab", Access.OIDC, oidc_group="class", actor=ADMIN)
    ada = Employee("s-1", "ada@lab.org", frozenset({"class"}))
    for person, said in ((None, "sign_in_needed"), (Employee("s-2", "bob@lab.org"), "not_in_group")):
        with pytest.raises(Forbidden) as refusal:
            await claim(db, 1, person=person)
        assert refusal.value.error_code == said
    mine = await claim(db, 1, person=ada)
    assert mine.claim.email == "ada@lab.org"
    # The same person under another e-mail, in another browser: one seat.
    renamed = Employee("s-1", "ada.lovelace@lab.org", frozenset({"class"}))
    assert (await claim(db, 2, person=renamed)).claim.id == mine.claim.id
