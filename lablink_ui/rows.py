"""Views as rows of a live table: what each cell shows, what it sorts by, what a search finds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from backend.live.changes import Snapshot
from backend.services.alarms import AlarmView
from backend.services.conditions import ConditionView
from backend.services.rehearsal_verdict import RehearsedMachine
from backend.services.rosters import RosterEntryView
from backend.services.views import EventView, LogLineView, OperationView, PoolView, ProgressView, VmView
from backend.states import ConditionKind, Health, OperationStatus, ProgressState, Severity, VmStatus
from lablink_ui.components.change import Row
from lablink_ui.words import (
    ALARM_WORDS,
    OPERATION_WORDS,
    POOL_WORDS,
    PROGRESS_WORDS,
    REHEARSED_WORDS,
    SEVERITY_WORDS,
    SIMULATED,
    SOURCE_WORDS,
    VM_WORDS,
    duration,
    money,
    person,
    sentence,
    what_of,
)

VM_FILTERS = (
    ("", "All"),
    ("available", "Available"),
    ("in-use", "In use"),
    ("busy", "In progress"),
    ("trouble", "Trouble"),
)
_SAID_LINES = 3
_BUSY = {VmStatus.PROVISIONING, VmStatus.BOOTING, VmStatus.CLEANING, VmStatus.DESTROYING}


def vm_row(vm: VmView) -> Row:
    """A machine."""
    notes = condition_notes(vm)
    gpu = vm.gpus[0].get("utilisation_pct") if vm.gpus else None
    return _row(
        vm.id,
        name=vm.hostname,
        testid=f"vm-{vm.hostname}",
        status=vm.status,
        group=_vm_group(vm),
        gist=f"{vm.status} {vm.email} {vm.reason} {notes} {vm.boot_id}",
        words=" ".join(
            (
                *(vm.hostname, vm.pool, vm.provider, vm.status, VM_WORDS[vm.status][0], vm.email or ""),
                *(vm.reason or "", *(note["text"] for note in notes)),
            )
        ),
        actions=list(vm.actions),
        ticks=True,
        machine=_link(vm.hostname, f"/admin/instances/{vm.hostname}", f"{vm.pool} · {vm.provider}"),
        state={**_chip(VM_WORDS[vm.status]), "notes": notes, "sub": cleaning_step(vm) or trouble_reason(vm)},
        researcher=vm.email,
        gpu=gpu,
        cpu=vm.cpu_pct,
        memory=vm.memory_pct,
        beat=_iso(vm.last_heartbeat_at),
        age=_iso(vm.created_at),
        sort={
            "machine": vm.hostname,
            "state": VM_WORDS[vm.status][0],
            "researcher": vm.email,
            "gpu": gpu,
            "cpu": vm.cpu_pct,
            "memory": vm.memory_pct,
            "beat": _iso(vm.last_heartbeat_at),
            "age": _iso(vm.created_at),
        },
    )


TROUBLE = {VmStatus.FAILED, VmStatus.QUARANTINED}


def cleaning_step(vm: VmView) -> str | None:
    """What is done on a machine between two people; None for one where nothing is."""
    return sentence(vm.reason or "its agent has not begun yet") if vm.status is VmStatus.CLEANING else None


def trouble_reason(vm: VmView) -> str | None:
    """Why a machine is out of its pool; None for one that is not."""
    return sentence(vm.reason or "no reason was given") if vm.status in TROUBLE else None


def condition_notes(vm: VmView) -> list[dict[str, str]]:
    """The conditions shown beside a status, the worst first: each a word, with its sentence behind it."""
    notes = [
        {"text": condition_word(vm, each), "tone": SEVERITY_WORDS[each.severity][1], "title": each.sentence}
        for each in vm.conditions
    ]
    # While a machine boots, its health may be known from elsewhere than from heartbeats.
    if not vm.conditions and vm.health in {Health.UNHEALTHY, Health.DEGRADED}:
        tone = "bad" if vm.health is Health.UNHEALTHY else "warn"
        notes.append({"text": vm.health.capitalize(), "tone": tone, "title": "; ".join(vm.reasons)})
    if vm.is_draining:
        notes.append({"text": "Draining", "tone": "busy", "title": "leaves the pool when its seat has ended"})
    return notes


def condition_word(vm: VmView, condition: ConditionView) -> str:
    """A word for a condition; for what an agent says in its own words, the verdict."""
    is_verdict = condition.kind is ConditionKind.REPORTED and condition.severity is not Severity.INFO
    return vm.health.capitalize() if is_verdict and vm.health else condition.title


def operation_row(operation: OperationView) -> Row:
    """An operation."""
    done, total = count_done(operation), len(operation.progress)
    took = _took(operation)
    what = what_of(operation)
    return _row(
        operation.id,
        name=str(operation.id),
        testid=f"operation-{operation.id}",
        status=operation.status,
        group=operation.status,
        gist=f"{operation.status} {done}",
        words=f"{operation.id} {what} {operation.pool} {operation.requested_by} {operation.reason or ''} "
        + " ".join(operation.hostnames),
        what=_link(what, f"/admin/operations/{operation.id}", f"{operation.pool} · no. {operation.id}"),
        state={**_chip(OPERATION_WORDS[operation.status]), "sub": operation.reason and sentence(operation.reason)},
        progress={
            "text": f"{done} of {total}",
            "percent": percent_done(operation),
            "tone": "hot" if operation.status is OperationStatus.FAILED else "",
        },
        by=person(operation.requested_by),
        at=_iso(operation.created_at),
        took=took,
        ticks=True,
        sort={
            "what": operation.id,
            "state": operation.status,
            "progress": percent_done(operation),
            "by": operation.requested_by,
            "at": _iso(operation.created_at),
            "took": took,
        },
    )


def count_done(operation: OperationView) -> int:
    """How many machines of an operation were made, or taken away."""
    return sum(each.state is ProgressState.DONE for each in operation.progress)


def percent_done(operation: OperationView) -> int:
    """The same, from 0 to 100."""
    return round(100 * count_done(operation) / len(operation.progress)) if operation.progress else 0


def progress_row(number: int, progress: ProgressView) -> Row:
    """How far an operation is with one machine."""
    return _row(
        number,
        name=progress.hostname,
        testid=f"progress-{progress.hostname}",
        status=progress.state,
        group=progress.state,
        gist=progress.state,
        words=f"{progress.hostname} {progress.detail or ''}",
        machine=_link(progress.hostname, f"/admin/instances/{progress.hostname}", None),
        state={**_chip(PROGRESS_WORDS[progress.state]), "sub": progress.detail and sentence(progress.detail)},
        took=duration(progress.elapsed_s) if progress.elapsed_s else None,
        sort={"machine": progress.hostname, "state": progress.state, "took": progress.elapsed_s},
    )


def pool_row(pool: PoolView, snapshot: Snapshot) -> Row:
    """A pool with what it holds now."""
    count = snapshot.count_pool(pool.id)
    text = f"{count.machines:,} of {pool.max:,}"
    return _row(
        pool.id,
        name=pool.name,
        testid=f"pool-{pool.name}",
        status=pool.status,
        group=pool.status,
        gist=f"{pool.status} {text} {count.free} {count.used} {count.line}",
        words=f"{pool.name} {pool.provider}",
        pool=_link(pool.name, f"/admin/pools/{pool.name}", "simulated" if pool.is_rehearsal else pool.provider),
        state=_chip(SIMULATED if pool.is_rehearsal else POOL_WORDS[pool.status]),
        machines=text,
        free=str(count.free),
        used=str(count.used),
        line=str(count.line),
        price=f"{money(pool.price_per_hour)} per hour" if pool.price_per_hour else None,
        sort={
            "pool": pool.name,
            "state": pool.status,
            "machines": count.machines,
            "free": count.free,
            "used": count.used,
            "line": count.line,
            "price": pool.price_per_hour,
        },
    )


def roster_row(entry: RosterEntryView) -> Row:
    """A person on a roster."""
    return _row(
        entry.id,
        name=entry.email,
        testid=f"roster-{entry.email}",
        status="listed",
        group="",
        gist=f"{entry.label} {entry.version}",
        words=f"{entry.email} {entry.label or ''}",
        actions=["link", "reissue", "remove"],
        email=entry.email,
        label=entry.label,
        sort={"email": entry.email.lower(), "label": entry.label},
    )


def event_row(event: EventView, snapshot: Snapshot | None = None) -> Row:
    """A line of history; with the snapshot it leads to what it speaks of: to a machine that is gone as well."""
    return _row(
        event.id,
        name=str(event.id),
        testid=f"event-{event.id}",
        status=event.kind,
        group=event.kind.partition(".")[0],
        gist="",
        words=f"{event.message} {event.actor} {event.kind} {event.address or ''}",
        what=_link(event.message, _place_of(event, snapshot) if snapshot else None, event.kind),
        by=person(event.actor) + (f" · {event.address}" if event.address else ""),
        at=_iso(event.at),
        sort={"what": event.message, "by": event.actor, "at": event.id},
    )


def alarm_row(alarm: AlarmView) -> Row:
    """An alarm that is over."""
    by = person(alarm.acknowledged_by) if alarm.acknowledged_by else None
    return _row(
        alarm.id,
        name=str(alarm.id),
        testid=f"alarm-{alarm.id}",
        status="resolved",
        group=alarm.severity,
        gist="",
        words=f"{alarm.sentence} {alarm.pool or ''} {ALARM_WORDS[alarm.kind]} {by or ''}",
        what=_link(alarm.sentence, alarm.place, ALARM_WORDS[alarm.kind]),
        state=_chip(SEVERITY_WORDS[alarm.severity]),
        opened=_iso(alarm.opened_at),
        resolved=_iso(alarm.resolved_at),
        by=by,
        sort={
            "what": alarm.sentence,
            "state": alarm.severity.rank,
            "opened": _iso(alarm.opened_at),
            "resolved": _iso(alarm.resolved_at),
            "by": by,
        },
    )


def rehearsed_row(number: int, machine: RehearsedMachine) -> Row:
    """A machine of a rehearsal."""
    words = REHEARSED_WORDS[machine.status]
    what = [f"{sentence(each).rstrip('.')}." for each in (machine.problem, machine.remedy) if each]
    said = " · ".join((machine.said or "").split("\n")[-_SAID_LINES:])
    return _row(
        number,
        name=machine.hostname,
        testid=f"rehearsed-{machine.hostname}",
        status=machine.status,
        group=machine.status,
        gist=f"{machine.status} {machine.problem} {machine.connection}",
        words=f"{machine.hostname} {words[0]} {machine.problem or ''} {said}",
        machine=_link(machine.hostname, f"/admin/instances/{machine.hostname}", None),
        state={**_chip(words), "sub": " ".join(what) or None},
        connection=sentence(machine.connection) if machine.connection else None,
        said=said or None,
        sort={"machine": machine.hostname, "state": words[0], "connection": machine.connection, "said": said},
    )


def _place_of(event: EventView, snapshot: Snapshot) -> str | None:
    vm = snapshot.vms.get(event.vm_id or 0)
    if vm is not None:
        return f"/admin/instances/{vm.hostname}"
    if event.vm_id is not None:
        return f"/admin/instances/by-id/{event.vm_id}"
    if event.operation_id is not None:
        return f"/admin/operations/{event.operation_id}"
    pool = snapshot.pools.get(event.pool_id or 0)
    return f"/admin/pools/{pool.name}" if pool else None


def log_line(line: LogLineView) -> list[Any]:
    """A line for a log view: id, milliseconds since 1970, level, source, message."""
    source = SOURCE_WORDS.get(line.source, line.source)
    return [line.id, int(line.at.timestamp() * 1_000), line.level, source, line.message]


def _row(number: int, **values: Any) -> Row:
    return {"actions": [], "ticks": False, **values, "id": number, "words": values["words"].lower()}


def _vm_group(vm: VmView) -> str:
    if vm.status in TROUBLE or vm.unreachable_since or vm.health is Health.UNHEALTHY:
        return "trouble"
    return "busy" if vm.status in _BUSY else str(vm.status)


def _chip(words: tuple[str, str]) -> dict[str, Any]:
    return {"text": words[0], "tone": words[1]}


def _link(text: str, href: str | None, sub: str | None) -> dict[str, Any]:
    return {"text": text, "href": href, "sub": sub}


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _took(operation: OperationView) -> str | None:
    if operation.started_at is None or operation.finished_at is None:
        return None
    return duration((operation.finished_at - operation.started_at).total_seconds())
