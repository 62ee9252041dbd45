"""One machine: its state, its history, its health over time, its logs, and what can be done with it."""

from __future__ import annotations

from datetime import datetime

from fastapi import Request
from fastapi.responses import Response

from backend.errors import NotFound
from backend.live.changes import ChangeSet, Snapshot
from backend.services.events import list_events
from backend.services.views import VmView
from backend.services.vms import get_named, get_vm_by_id
from lablink_ui.components import LiveTable
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.pages.events import COLUMNS, NO_EVENTS
from lablink_ui.pages.machine_conditions import MachineConditions
from lablink_ui.pages.machine_history import MachineHistory
from lablink_ui.pages.machine_log import MachineLog
from lablink_ui.pages.machine_repairs import MachineRepairs
from lablink_ui.pages.machine_seat import MachineSeat
from lablink_ui.pages.machine_terminals import MachineTerminals
from lablink_ui.pages.machines import VERBS, act_on
from lablink_ui.parts import Chip, Facts, button, link_button, tag, text
from lablink_ui.rows import cleaning_step, condition_notes, event_row, trouble_reason
from lablink_ui.visits import Reader, Visit, find_visit, to_login
from lablink_ui.words import VM_WORDS

_NEXT_STEP = "Repair boots it again; destroy takes it away."
_REPLACE = "Only a new machine in its place is known to be clean: destroy it. Repair has it cleaned once more."
FACTS = {
    "since": "Status since",
    "pool": "Pool",
    "researcher": "Researcher",
    "health": "Health",
    "beat": "Last heartbeat",
    "gpu": "GPU",
    "disk": "Disk free",
    "agent": "Agent",
    "boot": "Boot",
    "made": "Made",
}


@page_at("/admin/instances/{hostname}")
async def machine(request: Request, hostname: str, vm: int | None = None) -> Response | None:
    """One machine's page. Of several that bore the name the living or the latest, or the one with the id ``vm``."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    try:
        found = await get_named(visit.house.db, hostname, vm)
    except NotFound as exc:
        with admin_frame("No such machine", active="machines", user=visit.admin.name, subtitle=exc.message) as frame:
            link_button("All machines", "/admin/instances", classes="primary")
            await visit.follow(frame)
        return None
    await _draw(visit, found)
    return None


async def _draw(visit: Visit, vm: VmView) -> None:
    house, hostname = visit.house, vm.hostname
    with admin_frame(hostname, active="machines", user=visit.admin.name) as frame:
        with frame.buttons:
            buttons = {
                verb.verb: button(
                    verb.label,
                    lambda name=verb.verb: act_on(visit, frame.ask, name, [hostname]),  # type: ignore[misc]
                    classes="danger" if verb.danger else "",
                    testid=f"vm-action-{verb.verb}",
                )
                for verb in VERBS
            }
        with tag("div", "row", role="status"):
            chip = Chip(f"vm-{hostname}")
            notes = text("span", "", "sub said")
        conditions = MachineConditions()
        repairs = MachineRepairs(visit, vm)
        with tag("div", "grid2"):
            with tag("section", "card pad", aria_label="Facts"):
                tag("h2", "", "Facts")
                facts = Facts(FACTS, moments=("since", "beat", "made"))
            history = MachineHistory(visit, vm)
        sitting = MachineSeat(visit, frame, vm)
        terminals = MachineTerminals(visit, vm)
        log = MachineLog(visit, vm)
        with tag("section", "section", aria_label="Timeline"):
            tag("h2", "", "Timeline")
            timeline = LiveTable("Timeline", COLUMNS, empty=NO_EVENTS, sort="at", descending=True, searchable=False)

        def show(seen: VmView) -> None:
            chip.show(seen.status, VM_WORDS[seen.status])
            notes.say(_notes(seen))
            frame.subtitle.say(f"{seen.pool} · {seen.provider}")
            for verb, element in buttons.items():
                element.set_visibility(visit.may_operate and verb in seen.actions)
            conditions.show(seen)
            facts.show(**_facts(seen))
            sitting.show(seen)

        async def read_vm() -> None:
            show(await get_vm_by_id(house.db, vm.id))

        async def read_events() -> None:
            timeline.show([event_row(event) for event in await list_events(house.db, vm_id=vm.id, limit=200)])

        vm_reader, event_reader = (Reader(read) for read in (read_vm, read_events))
        repair_reader = Reader(repairs.read)

        def start(snapshot: Snapshot) -> None:
            show(snapshot.vms.get(vm.id, vm))
            terminals.show(snapshot)
            history.ask(now=True)
            event_reader.ask()
            repair_reader.ask()
            log.ask()

        def change(snapshot: Snapshot, changes: ChangeSet) -> None:
            terminals.show(snapshot, changes)
            for seen in changes.vms.upserts:
                if seen.id == vm.id:
                    show(seen)
                    history.ask()
            if vm.id in changes.vms.removals:
                vm_reader.ask()
            if vm.id in changes.eventful_vms or changes.touches("repairs", vm.id):
                event_reader.ask()
                repair_reader.ask()
                history.ask(now=True)
            log.follow(snapshot, changes)

        show(vm)
        await visit.follow(frame, start=start, on_changes=change)


def _notes(vm: VmView) -> str:
    """What there is to know beside the status, and what can be done about it."""
    listed = {each.sentence for each in vm.conditions}
    said = [f"{each['text']}: {each['title']}" for each in condition_notes(vm) if each["title"] not in listed]
    if step := cleaning_step(vm):
        said = [step, *said]
    if reason := trouble_reason(vm):
        said = [f"{reason.rstrip('.')}. {_REPLACE if vm.is_unclean else _NEXT_STEP}", *said]
    return " · ".join(said)


def _facts(vm: VmView) -> dict[str, str | datetime | None]:
    gpus = ", ".join(str(gpu.get("name") or "GPU") for gpu in vm.gpus) or "none"
    return {
        "since": vm.status_changed_at,
        "pool": f"{vm.pool} ({vm.provider})",
        "researcher": vm.email or "unclaimed",
        "health": vm.health.capitalize() if vm.health else "not reported yet",
        "beat": vm.last_heartbeat_at,
        "gpu": gpus if vm.last_heartbeat_at else None,
        "disk": f"{vm.disk_free_pct:.0f} %" if vm.disk_free_pct is not None else None,
        "agent": vm.agent_version,
        "boot": vm.boot_id,
        "made": vm.created_at,
    }
