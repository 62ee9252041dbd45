"""The machines: every VM that exists, live; act on one or on many."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from backend.live.changes import ChangeSet, Snapshot
from backend.services.actor import Actor
from backend.services.claims import release_vms
from backend.services.destroys import request_destroy
from backend.services.drains import drain_vms
from backend.services.vms import request_reboot, request_repair
from backend.states import VmStatus
from lablink_ui.components import Ask, Column, Empty, LiveTable, Verb
from lablink_ui.frame import admin_frame, page_at
from lablink_ui.parts import link_button
from lablink_ui.rows import VM_FILTERS, vm_row
from lablink_ui.visits import Visit, attempt, find_visit, to_login
from lablink_ui.words import VM_WORDS, count

COLUMNS = (
    Column("machine", "Machine", "link"),
    Column("state", "Status", "chip", wrap=True),
    Column("researcher", "Researcher", "person"),
    Column("gpu", "GPU", "bar", wide=1),
    Column("cpu", "CPU", "bar", wide=2),
    Column("memory", "Memory", "bar", wide=3),
    Column("beat", "Last heartbeat", "ago", wide=1),
    Column("age", "Made", "ago", wide=3),
)
VERBS = (
    Verb("release", "Release", danger=True),
    Verb("reboot", "Reboot", danger=True),
    Verb("repair", "Repair"),
    Verb("destroy", "Destroy", danger=True),
)
_HARMLESS = {"repair", "drain"}
_WARNINGS = {
    "release": "Their seats end now, and what is in the sessions is removed.",
    "reboot": "Whoever works on them is interrupted; seats are kept.",
    "repair": "They boot again and return to their pool once they are healthy.",
    "drain": "Nobody gets them any more. Seats on them go on until they end by themselves.",
    "destroy": "Their seats end and everything on them is lost. This cannot be undone.",
}


@page_at("/admin/instances")
async def machines(request: Request) -> Response | None:
    """The table of machines."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    filters, chosen = _filters(request.query_params.get("status", ""))
    with admin_frame("Machines", active="machines", user=visit.admin.name) as frame:
        with frame.buttons:
            link_button("Fleet map", "/admin/fleet")
            if visit.may_operate:
                link_button("Launch machines", "/admin/create", classes="primary", icon_name="plus")

        async def act(verb: str, hostnames: list[str]) -> None:
            if await act_on(visit, frame.ask, verb, hostnames):
                table.run_method("clearSelection")

        table = LiveTable(
            "Machines",
            COLUMNS,
            empty=Empty(
                "No machines yet", "Launch some: they appear here as they come up.", "Launch machines", "/admin/create"
            ),
            filters=filters,
            verbs=VERBS if visit.may_operate else (),
            armed="destroy" in request.query_params,
            chosen=chosen,
            on_act=act,
            on_resync=lambda: start(visit.house.live.snapshot),
        )

        def start(snapshot: Snapshot) -> None:
            # Once for all pages that come together: after a restart, say.
            table.reset(snapshot.once("vm rows", lambda: [vm_row(vm) for vm in snapshot.vms.values()]))
            say(snapshot)

        def change(snapshot: Snapshot, changes: ChangeSet) -> None:
            rows = snapshot.once("changed vm rows", lambda: [vm_row(vm) for vm in changes.vms.upserts])
            table.patch(rows, changes.vms.removals)
            say(snapshot)

        def say(snapshot: Snapshot) -> None:
            number = len(snapshot.vms)
            frame.subtitle.say(f"{count(number, 'machine')} in {count(len(snapshot.pools), 'pool')}, updated live")

        await visit.follow(frame, start=start, on_changes=change)
    return None


@page_at("/admin/destroy")
async def destroy(request: Request) -> Response:
    """The table of machines with destroy ready."""
    return RedirectResponse("/admin/instances?destroy=1", status_code=303)


def _filters(asked: str) -> tuple[tuple[tuple[str, str], ...], str]:
    """The filters of the table, and the one that the address asks for: one of them, or a status of its own."""
    known = {value for value, _ in VM_FILTERS}
    if asked in known or asked not in set(VmStatus):
        return VM_FILTERS, asked if asked in known else ""
    return (*VM_FILTERS, (asked, VM_WORDS[VmStatus(asked)][0])), asked


async def act_on(visit: Visit, ask: Ask, verb: str, hostnames: list[str]) -> bool:
    """Asks, then does it. Returns whether it was done."""
    action = _ACTIONS.get(verb)
    if action is None or not hostnames:
        return False
    names = ", ".join(hostnames[:8]) + (f" and {len(hostnames) - 8} more" if len(hostnames) > 8 else "")
    what = hostnames[0] if len(hostnames) == 1 else count(len(hostnames), "machine")
    title = f"{verb.capitalize()} {what}?"
    if not await ask.ask(title, f"{names}\n\n{_WARNINGS[verb]}", verb=verb.capitalize(), danger=verb not in _HARMLESS):
        return False

    async def do() -> str:
        return await action(visit, hostnames, await visit.actor())

    return await attempt(do)


async def _release(visit: Visit, hostnames: list[str], actor: Actor) -> str:
    done = await release_vms(visit.house.db, hostnames, actor=actor)
    return f"{count(len(done), 'seat')} released"


async def _reboot(visit: Visit, hostnames: list[str], actor: Actor) -> str:
    done = await request_reboot(visit.house.db, hostnames, actor=actor)
    return f"{count(len(done), 'machine')} told to reboot"


async def _repair(visit: Visit, hostnames: list[str], actor: Actor) -> str:
    done = await request_repair(visit.house.db, hostnames, actor=actor)
    return f"{count(len(done), 'machine')} told to boot again"


async def _drain(visit: Visit, hostnames: list[str], actor: Actor) -> str:
    done = await drain_vms(visit.house.db, hostnames, actor=actor)
    return f"{count(len(done), 'machine')} taken off the offer"


async def _destroy(visit: Visit, hostnames: list[str], actor: Actor) -> str:
    await request_destroy(visit.house.db, hostnames, actor=actor)
    return f"{count(len(hostnames), 'machine')} being destroyed"


_ACTIONS: dict[str, Callable[[Visit, list[str], Actor], Awaitable[str]]] = {
    "release": _release,
    "reboot": _reboot,
    "repair": _repair,
    "drain": _drain,
    "destroy": _destroy,
}
