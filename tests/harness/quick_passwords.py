"""Passwords that are hashed at once.

As it is kept for real, one costs a quarter of a second of a core to make or to compare, which is its purpose. The
algorithm is the same here, at the least cost; `tests/services/test_passwords.py` judges the real one.
"""

from __future__ import annotations

from collections.abc import Callable

from argon2 import PasswordHasher

from backend.services import passwords

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def use_quick_passwords(set_attribute: Callable[[object, str, object], None] = setattr) -> None:
    """For this process, or for as long as pytest's ``monkeypatch.setattr`` holds."""
    set_attribute(passwords, "_hasher", QUICK)
    set_attribute(passwords, "_decoy", passwords._make_decoy())
