from __future__ import annotations

from argon2 import extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY

from backend.services import passwords
from backend.services.passwords import hash_password, is_right_password


async def test_where_there_is_no_such_user_a_password_of_the_same_cost_is_tried(monkeypatch) -> None:
    tried = []
    monkeypatch.setattr(passwords, "_verify", lambda hashed, password: tried.append(hashed) or True)
    real = await hash_password("correct horse battery")
    assert await is_right_password(real, "x")
    assert not await is_right_password(None, "x")
    # The algorithm, its version, what it costs, and the lengths: all but salt and hash.
    first, second = ([each if n < 4 else len(each) for n, each in enumerate(hashed.split("$"))] for hashed in tried)
    assert first == second


async def test_no_password_is_that_of_nobody() -> None:
    assert not await is_right_password(None, "correct horse battery")


async def test_a_password_costs_a_thief_what_the_standard_asks() -> None:
    assert extract_parameters(await hash_password("correct horse battery")) == RFC_9106_LOW_MEMORY
