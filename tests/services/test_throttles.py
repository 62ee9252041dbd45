"""Guessing is stopped and told when to return; whoever is right is in nobody's way."""

from __future__ import annotations

import asyncio
import collections

import pytest

from backend.errors import Throttled, Unauthenticated
from backend.keys import KeyRing, new_key
from backend.services.events import list_events
from backend.services.sign_in import authenticate_api_token, ensure_api_token, ensure_first_admin, sign_in
from backend.services.throttles import Throttle, counting_failures, keys_of

KEYS = KeyRing([new_key()])

PASSWORD, TOKEN = "the password of the admin", "a-token-of-more-than-24-characters"
HOME, ELSEWHERE = "192.0.2.7", "198.51.100.9"

pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def throttle() -> Throttle:
    # Few; the default is 10.
    return Throttle(attempts=3, window_s=300)


@pytest.fixture
async def admin(db) -> None:
    await ensure_first_admin(db, PASSWORD)


async def attempt(db, throttle, password: str, *, name: str = "admin", address: str | None = HOME) -> str:
    """Tries to sign in; what came of it in a word."""
    try:
        await sign_in(db, name, password, keys=KEYS, throttle=throttle, session_hours=1, address=address)
    except Throttled as exc:
        assert exc.retry_after_s is not None
        assert 0 < exc.retry_after_s <= throttle.window_s + 1
        return "throttled"
    except Unauthenticated:
        return "wrong"
    return "in"


async def test_guessing_a_password_is_stopped_even_for_the_right_one_until_the_time_told(
    db, clock, throttle, admin
) -> None:
    assert [await attempt(db, throttle, f"guess {n}") for n in range(5)] == ["wrong"] * 3 + ["throttled"] * 2
    with pytest.raises(Throttled) as refused:
        await sign_in(db, "admin", PASSWORD, keys=KEYS, throttle=throttle, session_hours=1, address=HOME)
    assert refused.value.retry_after_s is not None
    clock.advance(refused.value.retry_after_s)
    assert await attempt(db, throttle, PASSWORD) == "in"


async def test_nobody_can_lock_the_admin_out_from_another_address(db, throttle, admin) -> None:
    for n in range(4):
        await attempt(db, throttle, f"guess {n}", address=ELSEWHERE)
    assert await attempt(db, throttle, PASSWORD, address=ELSEWHERE) == "throttled"
    assert await attempt(db, throttle, PASSWORD) == "in"


async def test_trying_one_password_on_many_names_is_stopped_after_twice_as_many_tries(db, throttle, admin) -> None:
    answers = [await attempt(db, throttle, "Password1", name=f"user{n}") for n in range(9)]
    assert answers == ["wrong"] * 6 + ["throttled"] * 3


async def test_a_hundred_guesses_at_once_are_not_a_hundred_tries(db, throttle, admin) -> None:
    answers = await asyncio.gather(*(attempt(db, throttle, f"guess {n}") for n in range(100)))
    assert collections.Counter(answers) == {"wrong": 3, "throttled": 97}


async def test_right_sign_ins_at_once_from_one_address_all_succeed(db, throttle, admin) -> None:
    answers = await asyncio.gather(*(attempt(db, throttle, PASSWORD) for _ in range(7)))
    assert set(answers) == {"in"}


async def test_all_addresses_of_one_ipv6_site_are_one_place(db, throttle, admin) -> None:
    answers = [await attempt(db, throttle, "guess", address=f"2001:db8:1:2::{n:x}") for n in range(1, 6)]
    assert answers == ["wrong"] * 3 + ["throttled"] * 2
    assert await attempt(db, throttle, PASSWORD, address="2001:db8:1:3::1") == "in"
    assert keys_of("password", "::ffff:192.0.2.7") == keys_of("password", HOME)


async def test_a_valid_token_passes_where_a_hundred_wrong_ones_were_tried_at_once(db) -> None:
    throttle = Throttle()
    await ensure_api_token(db, TOKEN)

    async def wrong(n: int) -> str:
        try:
            await authenticate_api_token(db, f"wrong-{n}", throttle=throttle, address=HOME)
        except Throttled:
            return "throttled"
        except Unauthenticated:
            return "wrong"
        return "in"

    answers = await asyncio.gather(*(wrong(n) for n in range(100)))
    assert collections.Counter(answers) == {"wrong": 10, "throttled": 90}
    found = await authenticate_api_token(db, TOKEN, throttle=throttle, address=HOME)
    assert found.name == "token:environment"


async def test_only_what_was_refused_as_unknown_counts(db, throttle) -> None:
    for _ in range(15):
        async with counting_failures(db, "enrolment", throttle=throttle, address=HOME):
            pass
        with pytest.raises(ValueError, match="another"):
            async with counting_failures(db, "enrolment", throttle=throttle, address=HOME):
                raise ValueError("another reason")
    with pytest.raises(Unauthenticated):
        async with counting_failures(db, "enrolment", throttle=throttle, address=HOME):
            raise Unauthenticated("unknown")


async def test_the_end_of_guessing_is_an_event_once_and_no_guess_stands_in_one(db, throttle, admin) -> None:
    for n in range(4):
        await attempt(db, throttle, "guess", name=f"my password {n}")
    for _ in range(4):
        await attempt(db, throttle, "guess")
    events = await list_events(db)
    stopped = [event for event in events if event.kind == "guessing.stopped"]
    assert [(event.actor, event.address) for event in stopped] == [("anyone", HOME)]
    assert "password" in stopped[0].message
    assert not [event for event in events if "my password" in event.message]
