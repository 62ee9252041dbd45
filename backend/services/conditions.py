"""Conditions of a machine: findings that last. Pure: from what was held and what is found to what is held now.

What begins may have to last a while first; what is gone must stay gone for a while before it is over. Between the two
nothing changes, so that nothing flaps. A new boot wipes the slate: what is not found then is over at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from backend.services.health_limits import HealthLimits
from backend.services.health_rules import REMEDIES, TITLES, Facts, Finding, find_all
from backend.states import ConditionKind, Health, Severity

# A peak is no pressure: for how long it must last.
BEGIN_S: Mapping[ConditionKind, float] = {ConditionKind.MEMORY: 60, ConditionKind.GPU_THROTTLED: 60}
# What starts again and again for this long will not be well by itself.
ESCALATE_S: Mapping[ConditionKind, float] = {ConditionKind.CONTAINER: 120}
# What goes up and down in its very nature stays as bad as it was until it is over.
_STAYS_BAD = frozenset({ConditionKind.CONTAINER})
# Words and versions do not waver.
_OVER_AT_ONCE = frozenset({ConditionKind.REPORTED, ConditionKind.AGENT_OLD})
_HEALTH = {Severity.CRITICAL: Health.UNHEALTHY, Severity.WARNING: Health.DEGRADED, Severity.INFO: Health.HEALTHY}


@dataclass(frozen=True, slots=True)
class Held:
    """A finding that was made. ``gone_at``: since when it is made no more, though it is not over yet."""

    kind: ConditionKind
    severity: Severity
    sentence: str
    key: str
    since_at: datetime
    is_open: bool
    gone_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """For the database."""
        gone = self.gone_at.isoformat() if self.gone_at else None
        names = ("kind", "severity", "sentence", "key", "is_open")
        return {name: getattr(self, name) for name in names} | {"since": self.since_at.isoformat(), "gone": gone}

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Held:
        """From the database."""
        return cls(
            ConditionKind(row["kind"]),
            Severity(row["severity"]),
            row["sentence"],
            row["key"],
            datetime.fromisoformat(row["since"]),
            row["is_open"],
            datetime.fromisoformat(row["gone"]) if row["gone"] else None,
        )


@dataclass(frozen=True, slots=True)
class ConditionView:
    """A condition as people see it: the sentence begins without a capital, as reasons do."""

    kind: ConditionKind
    severity: Severity
    since_at: datetime
    sentence: str

    @property
    def title(self) -> str:
        """A word or two for it."""
        return TITLES[self.kind]

    @property
    def remedy(self) -> str:
        """What can be done about it."""
        return REMEDIES[self.kind]

    def as_json(self) -> dict[str, Any]:
        """For the database, and for the REST surface."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "since_at": self.since_at.isoformat(),
            "sentence": self.sentence,
        }

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ConditionView:
        """From the database."""
        since_at = datetime.fromisoformat(row["since_at"])
        return cls(ConditionKind(row["kind"]), Severity(row["severity"]), since_at, row["sentence"])


def judge(
    facts: Facts, limits: HealthLimits, held: Sequence[Held], at: datetime, *, is_new_boot: bool = False
) -> tuple[Held, ...]:
    """What is held after a heartbeat at ``at``, the worst first."""
    before = {each.kind: each for each in held}
    found = find_all(facts, limits, {each.kind: each.severity for each in held if each.is_open})
    after = [_begin(finding, before.get(kind), at) for kind, finding in found.items()]
    gone = (_keep(each, limits, at, is_new_boot=is_new_boot) for each in held if each.kind not in found)
    after += [each for each in gone if each]
    return tuple(sorted(after, key=lambda each: (-each.severity.rank, each.kind)))


def list_open(held: Sequence[Held]) -> tuple[ConditionView, ...]:
    """Those that hold, for people."""
    return tuple(ConditionView(each.kind, each.severity, each.since_at, each.sentence) for each in held if each.is_open)


def health_of(conditions: Sequence[ConditionView]) -> Health:
    """The verdict: as bad as the worst."""
    worst = max((each.severity for each in conditions), key=lambda each: each.rank, default=Severity.INFO)
    return _HEALTH[worst]


def _begin(finding: Finding, before: Held | None, at: datetime) -> Held:
    since_at = before.since_at if before else at
    lasted = at - since_at
    is_open = (before is not None and before.is_open) or lasted >= timedelta(seconds=BEGIN_S.get(finding.kind, 0))
    severity = finding.severity
    if finding.kind in ESCALATE_S and lasted >= timedelta(seconds=ESCALATE_S[finding.kind]):
        severity = Severity.CRITICAL
    if before and before.is_open:
        is_better = finding.kind in _STAYS_BAD and severity.rank < before.severity.rank
        # The same words as long as they mean the same: a figure that wanders is no news.
        if is_better or (before.severity, before.key) == (severity, finding.key):
            return replace(before, gone_at=None)
    return Held(finding.kind, severity, finding.sentence, finding.key, since_at, is_open)


def _keep(held: Held, limits: HealthLimits, at: datetime, *, is_new_boot: bool) -> Held | None:
    if not held.is_open or is_new_boot or held.kind in _OVER_AT_ONCE:
        return None
    gone_at = held.gone_at or at
    if at - gone_at >= timedelta(seconds=limits.settle_s):
        return None
    return replace(held, gone_at=gone_at)
