"""The fleet: every machine on one screen, coloured by a measure of one's choice, live."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from backend.live.changes import ChangeSet, Snapshot
from backend.services.views import VmView
from backend.states import VmStatus
from lablink_ui.components import FleetMap, Measure
from lablink_ui.components.change import Row
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import link_button
from lablink_ui.rows import TROUBLE, condition_notes
from lablink_ui.visits import find_visit, to_login
from lablink_ui.words import VM_WORDS, count

_OUT = {VmStatus.PROVISIONING, VmStatus.DESTROYING}


@page_at("/admin/fleet")
async def fleet(request: Request) -> Response | None:
    """The map of the fleet."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    with admin_frame("Fleet map", active="machines", user=visit.admin.name) as frame:
        with frame.buttons:
            link_button("As a table", "/admin/instances")
        shown = FleetMap([measure for measure, _ in _MEASURES], on_resync=lambda: start(visit.house.live.snapshot))

        def start(snapshot: Snapshot) -> None:
            shown.reset(snapshot.once("fleet cells", lambda: [fleet_cell(vm) for vm in snapshot.vms.values()]))
            say(snapshot)

        def change(snapshot: Snapshot, changes: ChangeSet) -> None:
            cells = snapshot.once("changed fleet cells", lambda: [fleet_cell(vm) for vm in changes.vms.upserts])
            shown.patch(cells, changes.vms.removals)
            say(snapshot)

        def say(snapshot: Snapshot) -> None:
            frame.subtitle.say(f"{count(len(snapshot.vms), 'machine')}, updated live")

        await visit.follow(frame, start=start, on_changes=change)
    return None


def fleet_cell(vm: VmView) -> Row:
    """A machine as a cell of the map."""
    notes = condition_notes(vm)
    tones = {note["tone"] for note in notes}
    is_bad = vm.status in TROUBLE or "bad" in tones
    # A figure of a machine that is silent or gone is none.
    is_known = vm.unreachable_since is None and vm.status not in _OUT
    values: Mapping[str, Any] = {
        measure.key: round(value, 1) if is_known and (value := read(vm)) is not None else None
        for measure, read in _MEASURES
    }
    return {
        "id": vm.id,
        "name": vm.hostname,
        "href": f"/admin/instances/{vm.hostname}",
        "pool": vm.pool,
        "order": f"{vm.pool} {vm.hostname}",
        "status": vm.status,
        "tone": "bad" if is_bad else "warn" if "warn" in tones else "",
        "words": ", ".join((VM_WORDS[vm.status][0], *(note["text"] for note in notes))),
        "values": values,
    }


def _mean(vm: VmView, key: str) -> float | None:
    values = [float(gpu[key]) for gpu in vm.gpus if gpu.get(key) is not None]
    return sum(values) / len(values) if values else None


def _gpu_memory_pct(vm: VmView) -> float | None:
    total = sum(float(gpu.get("memory_total_mb") or 0) for gpu in vm.gpus)
    used = sum(float(gpu.get("memory_used_mb") or 0) for gpu in vm.gpus)
    return 100 * used / total if total else None


def _hottest(vm: VmView) -> float | None:
    return max((float(gpu["temperature_c"]) for gpu in vm.gpus if gpu.get("temperature_c") is not None), default=None)


_PARTS = (20, 40, 60, 80)
_MEASURES: tuple[tuple[Measure, Callable[[VmView], float | None]], ...] = (
    (Measure("gpu", "GPU busy", "%", _PARTS), lambda vm: _mean(vm, "utilisation_pct")),
    (Measure("gpu_memory", "GPU memory in use", "%", _PARTS), _gpu_memory_pct),
    (Measure("temperature", "GPU temperature", "°C", (40, 55, 70, 85)), _hottest),
    (Measure("cpu", "CPU", "%", _PARTS), lambda vm: vm.cpu_pct),
    (Measure("memory", "Memory in use", "%", _PARTS), lambda vm: vm.memory_pct),
    (
        Measure("disk", "Disk in use", "%", (50, 70, 80, 90)),
        lambda vm: None if vm.disk_free_pct is None else 100 - vm.disk_free_pct,
    ),
)
