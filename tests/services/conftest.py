"""Passwords that are hashed at once: what is about people and guesses needs no slow hash."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from backend.services import passwords

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same algorithm at the least cost, in a thread as ever; tests of servers and pages sign in by the slow one."""
    monkeypatch.setattr(passwords, "_hasher", QUICK)
    monkeypatch.setattr(passwords, "_decoy", passwords._make_decoy())
