"""The conditions of VMs: judged with each batch of heartbeats, written where they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession

from backend.models import Vm
from backend.pauses import with_pauses
from backend.services.actor import Actor
from backend.services.conditions import ConditionView, Held, health_of, judge, list_open
from backend.services.health_limits import HealthLimits
from backend.services.health_rules import Facts
from backend.services.moves import record_event
from backend.states import ConditionKind, Health, Phase, Severity, VmStatus

if TYPE_CHECKING:
    from backend.services.heartbeats import HeartbeatReport

_ENDING = frozenset({VmStatus.DESTROYING, VmStatus.DESTROYED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a heartbeat means. ``watched`` is what to remember until the next one."""

    health: Health
    reasons: tuple[str, ...]
    conditions: tuple[ConditionView, ...]
    watched: dict[str, Any]

    @property
    def conditions_json(self) -> list[dict[str, Any]]:
        """For the database."""
        return [each.as_json() for each in self.conditions]


async def judge_reports(
    session: AsyncSession, reports: Mapping[int, HeartbeatReport], limits: HealthLimits
) -> dict[int, Verdict]:
    """The verdict on each VM that exists, by its id; one statement for all of them."""
    rows = await session.execute(_READ_WATCHED, {"ids": list(reports)})
    return {row.id: _judge(row, reports[row.id], limits.over(row.health or {})) async for row in with_pauses(rows)}


def note_conditions(session: AsyncSession, vm: Vm, verdict: Verdict, *, at: datetime) -> None:
    """Brings the row of a VM that this transaction holds locked up to a verdict; what begins and ends is an event.

    The agent's own words are not: the change of the VM's health, which follows from them, is one already.
    """
    if vm.conditions == verdict.conditions_json:
        return
    before = {each.kind: each for each in map(ConditionView.of, vm.conditions)}
    now = {each.kind: each for each in verdict.conditions}
    for kind in sorted((before.keys() | now.keys()) - {ConditionKind.REPORTED}):
        was, now_is = before.get(kind), now.get(kind)
        if now_is and (was is None or (was.severity, was.sentence) != (now_is.severity, now_is.sentence)):
            _note(session, vm, "vm.condition", f"{vm.hostname}: {now_is.sentence}", now_is, at)
        elif was and now_is is None:
            _note(session, vm, "vm.condition_over", f"{vm.hostname}: over: {was.title}", was, at)
    vm.conditions, vm.updated_at = verdict.conditions_json, at


def list_conditions(vm: Vm) -> tuple[ConditionView, ...]:
    """What is wrong with a VM, the worst first; silence among it. One that is on its way out has nothing to mend."""
    if VmStatus(vm.status) in _ENDING:
        return ()
    held = tuple(map(ConditionView.of, vm.conditions))
    if vm.unreachable_since is None:
        return held
    said = f"silent since {vm.unreachable_since:%H:%M:%S} UTC"
    return (ConditionView(ConditionKind.SILENT, Severity.CRITICAL, vm.unreachable_since, said), *held)


def _judge(row: Row[Any], report: HeartbeatReport, limits: HealthLimits) -> Verdict:
    watched = row.watched or {}
    # What fell off the bus stays expected.
    gpus_seen = max(len(report.gpus), int(watched.get("gpus", 0)))
    facts = Facts(
        memory_pct=report.memory_pct,
        disk_free_pct=report.disk_free_pct,
        disk_free_gb=report.disk_free_gb,
        gpus=report.gpus,
        gpus_expected=int(limits.gpus) or gpus_seen,
        container=report.container,
        skew_s=report.skew_s,
        agent_version=row.agent_version,
        is_ready=report.phase is Phase.READY,
        is_in_use=row.status == VmStatus.IN_USE,
        health=report.health,
        reasons=report.reasons,
    )
    before = tuple(map(Held.of, watched.get("held", ())))
    held = judge(facts, limits, before, report.at, is_new_boot=row.boot_id != report.boot_id)
    conditions = list_open(held)
    reasons: list[str] = []
    for each in conditions:
        if each.kind is ConditionKind.REPORTED:
            reasons.extend(report.reasons)
        elif each.severity is not Severity.INFO:
            reasons.append(each.sentence)
    remembered = {"gpus": gpus_seen, "held": [each.as_json() for each in held]} if gpus_seen or held else {}
    return Verdict(health_of(conditions), tuple(reasons), conditions, remembered)


def _note(session: AsyncSession, vm: Vm, kind: str, message: str, about: ConditionView, at: datetime) -> None:
    data = {"condition": about.kind, "severity": about.severity, "since": about.since_at.isoformat()}
    actor = Actor.rule("health")
    record_event(session, kind, message, actor=actor, at=at, pool_id=vm.pool_id, vm_id=vm.id, data=data)


_READ_WATCHED = text("""
SELECT v.id, v.status, v.agent_version, nullif(p.health, '{}') AS health, l.boot_id, l.watched
FROM vms AS v JOIN pools AS p ON p.id = v.pool_id LEFT JOIN latest_heartbeats AS l ON l.vm_id = v.id
WHERE v.id = ANY(:ids)""")
