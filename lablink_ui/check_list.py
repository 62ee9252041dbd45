"""The list of what was looked at before a launch: loading, ok, warning, problem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from backend.provisioning.checks import Check
from backend.states import CheckStatus
from lablink_ui.parts import button, tag, text
from lablink_ui.words import CHECK_WORDS, count

LOADING, NONE = "loading", "none"
_ORDER = (CheckStatus.PROBLEM, CheckStatus.WARNING, CheckStatus.OK)


class CheckList:
    """A card with one line a check, the worst first; hidden where there is nothing to look at."""

    def __init__(self, on_again: Callable[[], Any]) -> None:
        self.checks: Sequence[Check] = ()
        with tag("section", "card pad", aria_label="Before you launch", data_testid="launch-checks") as self._card:
            with tag("div", "row"):
                tag("h2", "", "Before you launch")
                self._again = button("Look again", on_again, classes="small push", testid="launch-check-again")
            self._verdict = text("p", "", "sub", role="status")
            self._lines = tag("div")
        self._show_status(NONE)

    @property
    def worst(self) -> CheckStatus | None:
        """How the worst of the lines stands."""
        return next((each for each in _ORDER if any(check.status is each for check in self.checks)), None)

    def load(self) -> None:
        """Says that it is being looked."""
        self._show_status(LOADING)
        self._verdict.say("Looking at the account…")
        if not self.checks:
            self._lines.clear()
            with self._lines:
                tag("div", "skeleton-block", aria_hidden="true")

    def show(self, checks: Sequence[Check]) -> None:
        """Shows what was found."""
        self.checks = sorted(checks, key=lambda check: _ORDER.index(check.status))
        self._show_status(self.worst or NONE)
        self._verdict.say(_verdict(self.checks))
        self._lines.clear()
        with self._lines:
            for check in self.checks:
                words, tone = CHECK_WORDS[check.status]
                with tag("div", "attention"):
                    tag("span", f"chip {tone}", words)
                    with tag("p", "lines"):
                        tag("span", "", check.name)
                        tag("span", "sub whole", check.sentence)
                        if check.remedy:
                            tag("span", "sub whole remedy", check.remedy)

    def _show_status(self, status: str) -> None:
        self._card.set_visibility(status != NONE)
        self._card.props["data-status"] = status
        self._card.props["aria-busy"] = "true" if status == LOADING else "false"
        self._card.update()


def _verdict(checks: Sequence[Check]) -> str:
    problems = sum(check.status is CheckStatus.PROBLEM for check in checks)
    warnings = sum(check.status is CheckStatus.WARNING for check in checks)
    if problems:
        return f"{count(problems, 'problem')}: this launch will most likely fail."
    if warnings:
        return f"{count(warnings, 'warning')}: this launch should work; read first what may get in its way."
    return "All is well: nothing stands in the way of this launch."
