"""What is looked at before a launch: each line says how it stands and, if not well, what to do."""

from __future__ import annotations

from dataclasses import dataclass

from backend.states import CheckStatus


@dataclass(frozen=True, slots=True)
class Check:
    """One line. ``name`` is short and stays the same; ``remedy`` is there unless all is well."""

    name: str
    status: CheckStatus
    sentence: str
    remedy: str = ""


def ok(name: str, sentence: str) -> Check:
    """All is well."""
    return Check(name, CheckStatus.OK, sentence)


def warning(name: str, sentence: str, remedy: str) -> Check:
    """It may go wrong, or could not be looked at."""
    return Check(name, CheckStatus.WARNING, sentence, remedy)


def problem(name: str, sentence: str, remedy: str) -> Check:
    """It will go wrong."""
    return Check(name, CheckStatus.PROBLEM, sentence, remedy)
