"""Heartbeats: many reports in one batched write; only what changes a VM touches its row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.db.engine import Database
from backend.models import Enrolment, Vm
from backend.pauses import with_pauses
from backend.services.actor import Actor
from backend.services.health_limits import HealthLimits
from backend.services.moves import move_vm, record_event
from backend.services.sessions import list_unclean, renew_end_session, serve_line
from backend.services.vm_conditions import Verdict, judge_reports, note_conditions
from backend.states import Health, Phase, VmStatus

# facts["failed_by"] of a VM that a rule took out and that may come back by itself when its agent says all is well.
SELF_HEALING = frozenset({"silence", "boot_deadline", "health"})
# facts["interruption_at"] of a VM that the cloud has said it will take away: when, as ISO 8601.
INTERRUPTION = "interruption_at"


@dataclass(frozen=True, slots=True)
class HeartbeatReport:
    """One heartbeat as its agent sent it; percentages from 0 to 100. The token named the VM.

    ``skew_s``: how far the agent's clock is behind ours. ``container``: its name and state, where there should be one.
    """

    vm_id: int
    enrolment_id: int
    at: datetime
    boot_id: str
    phase: Phase
    health: Health
    reasons: tuple[str, ...]
    gpus: tuple[dict[str, Any], ...]
    cpu_pct: float
    memory_pct: float
    disk_free_pct: float
    interruption_at: datetime | None = None
    disk_free_gb: float | None = None
    skew_s: float | None = None
    container: dict[str, str] | None = None


async def record_heartbeats(
    db: Database, reports: Sequence[HeartbeatReport], limits: HealthLimits = HealthLimits()
) -> None:
    """Stores the latest report of each VM, and moves the VMs for which it means something new.

    What counts as the VM's health is the verdict of the rules, the agent's own word among them.
    """
    latest = {report.vm_id: report for report in sorted(reports, key=lambda report: report.at)}
    if not latest:
        return
    async with db.transaction() as session:
        verdicts = await judge_reports(session, latest, limits)
        latest = {vm_id: _with_verdict(latest[vm_id], verdict) for vm_id, verdict in verdicts.items()}
        touched = await _store(session, latest, verdicts)
        await _confirm_enrolments(session, [latest[vm.id] for vm in touched])
        unclean = await list_unclean(session, [vm.id for vm in touched])
        pools = set()
        for vm in touched:
            note_conditions(session, vm, verdicts[vm.id], at=db.now())
            if await _apply(session, db, vm, latest[vm.id], is_clean=vm.id not in unclean):
                pools.add(vm.pool_id)
        await session.flush()
        for pool_id in sorted(pools):
            await serve_line(session, pool_id, at=db.now())


def _with_verdict(report: HeartbeatReport, verdict: Verdict) -> HeartbeatReport:
    if (report.health, report.reasons) == (verdict.health, verdict.reasons):
        return report
    return replace(report, health=verdict.health, reasons=verdict.reasons)


async def _store(
    session: AsyncSession, latest: Mapping[int, HeartbeatReport], verdicts: Mapping[int, Verdict]
) -> Sequence[Vm]:
    """Stores the reports; returns the VMs of which they say anything new, locked."""
    rows = [json.dumps(_row(report, verdicts[report.vm_id])) async for report in with_pauses(latest.values())]
    found = await session.execute(_STORE, {"rows": f"[{','.join(rows)}]", "healing": sorted(SELF_HEALING)})
    ids = found.scalars().all()
    if not ids:
        return []
    return (await session.scalars(select(Vm).where(Vm.id.in_(ids)).order_by(Vm.id).with_for_update())).all()


async def _confirm_enrolments(session: AsyncSession, reports: Sequence[HeartbeatReport]) -> None:
    """The first heartbeat with an agent token ends the enrolment token's right to ask for another."""
    ids = [report.enrolment_id for report in reports]
    if ids:
        await session.execute(
            update(Enrolment)
            .where(Enrolment.id.in_(ids), Enrolment.confirmed_at.is_(None))
            .values(confirmed_at=max(report.at for report in reports))
        )


async def _apply(session: AsyncSession, db: Database, vm: Vm, report: HeartbeatReport, *, is_clean: bool) -> bool:
    """Brings the VM up to date with a report. Returns whether the VM came free."""
    at, actor = db.now(), Actor.agent(vm.hostname)
    if vm.first_heartbeat_at is None:
        vm.first_heartbeat_at = report.at
    if vm.unreachable_since is not None:
        vm.unreachable_since = None
        _note(session, vm, "vm.reachable", f"{vm.hostname} answers again", actor, at)
    if vm.health != report.health or tuple(vm.health_reasons) != report.reasons:
        if vm.health is not None and vm.health != report.health:
            why = f": {'; '.join(report.reasons)}" if report.reasons else ""
            _note(session, vm, f"vm.{report.health}", f"{vm.hostname} is {report.health}{why}", actor, at)
        vm.health, vm.health_reasons = report.health, list(report.reasons)
    _note_interruption(session, vm, report, actor, at)
    vm.boot_id, vm.updated_at = report.boot_id, at
    return await _move_by_health(session, vm, report, actor, at, is_clean=is_clean)


def _note_interruption(session: AsyncSession, vm: Vm, report: HeartbeatReport, actor: Actor, at: datetime) -> None:
    ends_at = report.interruption_at
    told = ends_at.isoformat() if ends_at else None
    if vm.facts.get(INTERRUPTION) == told:
        return
    others = {key: value for key, value in vm.facts.items() if key != INTERRUPTION}
    vm.facts = others | ({INTERRUPTION: told} if told else {})
    if ends_at:
        message = f"The cloud takes {vm.hostname} away at {ends_at:%H:%M:%S} UTC"
        _note(session, vm, "vm.interruption", message, actor, at)


async def _move_by_health(
    session: AsyncSession, vm: Vm, report: HeartbeatReport, actor: Actor, at: datetime, *, is_clean: bool
) -> bool:
    fit = report.phase is Phase.READY and report.health is not Health.UNHEALTHY
    status = VmStatus(vm.status)
    if status is VmStatus.AVAILABLE and report.health is Health.UNHEALTHY:
        vm.facts = {**vm.facts, "failed_by": "health"}
        move_vm(session, vm, VmStatus.FAILED, actor=actor, at=at, reason="; ".join(report.reasons) or "unhealthy")
    elif (
        status is VmStatus.FAILED
        and fit
        and vm.facts.get("failed_by") in SELF_HEALING
        and not vm.facts.get("awaiting_boot")
    ):
        vm.facts = {key: value for key, value in vm.facts.items() if key != "failed_by"}
        move_vm(session, vm, VmStatus.BOOTING, actor=actor, at=at, reason="answers again and is healthy")
        status = VmStatus.BOOTING
    # After a reboot was asked for, heartbeats of the former boot may still be on their way.
    if vm.facts.get("awaiting_boot"):
        return False
    if status is VmStatus.BOOTING and fit and report.health is Health.HEALTHY:
        if is_clean:
            move_vm(session, vm, VmStatus.AVAILABLE, actor=actor, at=at)
            return True
        await renew_end_session(session, vm, at=at)
    return False


def _note(session: AsyncSession, vm: Vm, kind: str, message: str, actor: Actor, at: datetime) -> None:
    record_event(session, kind, message, actor=actor, at=at, pool_id=vm.pool_id, vm_id=vm.id)


def _row(report: HeartbeatReport, verdict: Verdict) -> Mapping[str, Any]:
    gpus = report.gpus
    return {
        "vm_id": report.vm_id,
        "enrolment_id": report.enrolment_id,
        "at": report.at.isoformat(),
        "boot_id": report.boot_id,
        "phase": report.phase,
        "health": report.health,
        "reasons": list(report.reasons),
        "gpus": list(gpus),
        "watched": verdict.watched,
        "conditions": verdict.conditions_json,
        # Samples are kept as reals, which do not hold whatever a float can be.
        "cpu_pct": round(report.cpu_pct, 2),
        "memory_pct": round(report.memory_pct, 2),
        "disk_free_pct": round(report.disk_free_pct, 2),
        "interruption_at": report.interruption_at.isoformat() if report.interruption_at else None,
        "gpu_pct": _mean(gpus, "utilisation_pct"),
        "gpu_memory_pct": _memory_pct(gpus),
        "gpu_temperature_c": max(
            (round(g["temperature_c"], 2) for g in gpus if g.get("temperature_c") is not None), default=None
        ),
    }


def _mean(gpus: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [float(gpu[key]) for gpu in gpus if gpu.get(key) is not None]
    return round(sum(values) / len(values), 2) if values else None


def _memory_pct(gpus: Sequence[dict[str, Any]]) -> float | None:
    total = sum(float(gpu.get("memory_total_mb") or 0) for gpu in gpus)
    used = sum(float(gpu.get("memory_used_mb") or 0) for gpu in gpus)
    return round(100 * min(used / total, 1.0), 2) if total else None


# Which VMs a batch says anything new about; for all others their row stays untouched and no notice is sent. What is
# stored may be newer: another process stores as well.
_STORE = text("""
WITH r AS MATERIALIZED (
    SELECT r.* FROM jsonb_to_recordset(cast(:rows AS jsonb)) AS r(
        vm_id int, enrolment_id bigint, at timestamptz, boot_id text, phase text, health text, reasons jsonb,
        gpus jsonb, watched jsonb, conditions jsonb,
        cpu_pct float8, memory_pct float8, disk_free_pct float8, gpu_pct float8, gpu_memory_pct float8,
        gpu_temperature_c float8, interruption_at text)
    JOIN vms ON vms.id = r.vm_id),
sampled AS (
    INSERT INTO health_samples
        (vm_id, at, cpu_pct, memory_pct, disk_free_pct, gpu_pct, gpu_memory_pct, gpu_temperature_c)
    SELECT vm_id, at, cpu_pct, memory_pct, disk_free_pct, gpu_pct, gpu_memory_pct, gpu_temperature_c
    FROM r ON CONFLICT DO NOTHING),
stored AS (
    INSERT INTO latest_heartbeats AS l
        (vm_id, at, boot_id, phase, health, reasons, gpus, watched, cpu_pct, memory_pct, disk_free_pct)
    SELECT vm_id, at, boot_id, phase, health, reasons, gpus, watched, cpu_pct, memory_pct, disk_free_pct
    FROM r ORDER BY vm_id
    ON CONFLICT (vm_id) DO UPDATE SET
        (at, boot_id, phase, health, reasons, gpus, watched, cpu_pct, memory_pct, disk_free_pct)
        = (EXCLUDED.at, EXCLUDED.boot_id, EXCLUDED.phase, EXCLUDED.health, EXCLUDED.reasons, EXCLUDED.gpus,
           EXCLUDED.watched, EXCLUDED.cpu_pct, EXCLUDED.memory_pct, EXCLUDED.disk_free_pct)
    WHERE l.at <= EXCLUDED.at
    RETURNING vm_id)
SELECT v.id FROM stored JOIN r USING (vm_id) JOIN vms AS v ON v.id = r.vm_id
WHERE v.status <> 'destroyed' AND (
    v.first_heartbeat_at IS NULL
    OR v.unreachable_since IS NOT NULL
    OR v.boot_id IS DISTINCT FROM r.boot_id
    OR v.health IS DISTINCT FROM r.health
    OR v.health_reasons <> r.reasons
    OR v.conditions <> r.conditions
    OR v.facts ->> 'interruption_at' IS DISTINCT FROM r.interruption_at
    OR (v.status = 'booting' AND r.phase = 'ready')
    OR (v.status = 'available' AND r.health = 'unhealthy')
    OR (v.status = 'failed' AND r.phase = 'ready' AND v.facts ->> 'failed_by' = ANY(:healing))
    OR EXISTS (SELECT FROM enrolments AS e WHERE e.id = r.enrolment_id AND e.confirmed_at IS NULL))""")
