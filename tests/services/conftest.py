"""Passwords that are hashed at once: what is about people and guesses needs no slow hash."""

from __future__ import annotations

import pytest

from tests.harness.quick_passwords import use_quick_passwords


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same algorithm at the least cost, in a thread as ever; a first start takes the slow one."""
    use_quick_passwords(monkeypatch.setattr)
