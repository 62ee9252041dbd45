"""Passwords that are hashed at once: what is about people and guesses needs no slow hash."""

from __future__ import annotations

import pytest

from backend.services import passwords
from tests.harness.prepared import QUICK


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same algorithm at the least cost, in a thread as ever; a first start takes the slow one."""
    monkeypatch.setattr(passwords, "_hasher", QUICK)
    monkeypatch.setattr(passwords, "_decoy", passwords._make_decoy())
