"""The overview: what runs, who sits where, what needs attention, what it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import Response
from nicegui import ui

from backend.live.changes import ChangeSet, Snapshot
from backend.services.costs import Costs, get_costs
from backend.services.findings import FindingView, list_findings
from backend.states import GONE_VM, OPEN_OPERATION, OperationKind, VmStatus
from lablink_ui.components import Column, Empty, LiveTable
from lablink_ui.components.change import Row
from lablink_ui.frame import Frame, admin_frame, page_at
from lablink_ui.mends import draw_mend
from lablink_ui.parts import Text, link_button, tag, text
from lablink_ui.rows import TROUBLE, condition_notes, count_done, pool_row, trouble_reason
from lablink_ui.visits import Reader, Visit, find_visit, to_login
from lablink_ui.words import FINDING_WORDS, KIND_WORDS, OPERATION_WORDS, VM_WORDS, count, money, people, sentence

MAX_SHOWN = 8
POOL_COLUMNS = (
    Column("pool", "Pool", "link"),
    Column("state", "State", "chip"),
    Column("machines", "Machines"),
    Column("free", "Available"),
    Column("used", "In use", wide=1),
    Column("line", "In line"),
    Column("price", "Price per machine", wide=1),
)
COSTS_EVERY_S = 60


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of a list: its state as a chip, what it is about as a link, and what to know about it."""

    tone: str
    state: str
    href: str
    name: str
    detail: str
    finding: FindingView | None = None


@page_at("/admin")
async def overview(request: Request) -> Response | None:
    """The overview."""
    visit = await find_visit(request)
    if visit is None:
        return to_login(request)
    with admin_frame("Overview", active="overview", user=visit.admin.name) as frame:
        with frame.buttons:
            if visit.may_operate:
                link_button("Launch machines", "/admin/create", classes="primary", icon_name="plus")
        show = _Overview(visit, frame).show
        await visit.follow(frame, start=show, on_changes=show)
    return None


class _Overview:
    """What the page shows, and what it reads for that."""

    def __init__(self, visit: Visit, frame: Frame) -> None:
        self._house, self._subtitle = visit.house, frame.subtitle
        self._tiles = _draw_tiles()
        self._counts: Counter[VmStatus] | None = None
        with tag("div", "grid2"):
            self._attention = _LineList(
                "Needs attention", "/admin/instances?status=trouble", lambda each: draw_mend(visit, frame, each)
            )
            self._running = _LineList("Running now", "/admin/operations")
        with tag("section", "section", aria_label="Pools"):
            tag("h2", "", "Pools")
            self._pools = LiveTable(
                "Pools",
                (*POOL_COLUMNS[:-1], Column("cost", "Cost now", wide=1), POOL_COLUMNS[-1]),
                empty=Empty("No pools", "Make one to launch machines.", "New pool", "/admin/pools"),
                searchable=False,
            )
        self._costs, self._findings = Costs(0, 0), list[FindingView]()
        self._costs_reader, self._findings_reader = Reader(self._read_costs), Reader(self._read_findings)
        ui.timer(COSTS_EVERY_S, self._costs_reader.ask, immediate=False)

    def show(self, snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        """Shows all of it, and asks for what the picture does not hold."""
        self._show_counts(snapshot.once("statuses", lambda: Counter(vm.status for vm in snapshot.list_real_vms())))
        self._show_pools(snapshot)
        self._show_attention(snapshot)
        self._running.show(snapshot.once("running", lambda: _list_running(snapshot)), "No operation is running.")
        if changes is None or changes.vms or changes.pools:
            self._costs_reader.ask()
        if changes is None or changes.touches("findings"):
            self._findings_reader.ask()

    def _show_counts(self, counts: Counter[VmStatus]) -> None:
        if self._counts == counts:
            return
        self._counts = counts
        for status, number in self._tiles.items():
            number.say(str(counts[status]))
            number.classes(**{"remove" if counts[status] else "add": "zero"})

    def _show_pools(self, snapshot: Snapshot) -> None:
        self._pools.show([_with_cost(pool_row(pool, snapshot), self._costs) for pool in snapshot.pools.values()])

    def _show_attention(self, snapshot: Snapshot) -> None:
        lines = [*map(_finding_line, self._findings), *snapshot.once("attention", lambda: _list_attention(snapshot))]
        self._attention.show(lines, _all_well(snapshot))

    async def _read_costs(self) -> None:
        house = self._house
        self._costs = costs = await house.shared.get("costs", lambda: get_costs(house.db))
        pools = house.live.snapshot.pools.values()
        self._show_pools(house.live.snapshot)
        if costs.per_hour or costs.today or any(pool.price_per_hour for pool in pools):
            self._subtitle.say(f"{money(costs.per_hour)} per hour now · {money(costs.today)} today (UTC)")
        else:
            self._subtitle.say("No pool has a price, so no costs are counted")

    async def _read_findings(self) -> None:
        house = self._house
        self._findings = await house.shared.get("findings", lambda: list_findings(house.db))
        self._show_attention(house.live.snapshot)


class _LineList:
    """A card with the first few lines of a list; ``all_at`` is where all of them are. Drawn anew when they change."""

    def __init__(self, title: str, all_at: str, draw_action: Callable[[FindingView], None] = lambda _: None) -> None:
        self._all_at, self._draw_action = all_at, draw_action
        self._shown: tuple[list[_Line], str] | None = None
        with tag("section", "card pad", aria_label=title):
            tag("h2", "", title)
            self._box = tag("div")

    def show(self, lines: list[_Line], nothing: str) -> None:
        """Shows these lines, or what to say where there are none."""
        if self._shown == (lines, nothing):
            return
        self._shown = (lines, nothing)
        self._box.clear()
        with self._box:
            if not lines:
                tag("p", "sub", nothing)
            for line in lines[:MAX_SHOWN]:
                self._draw(line)
            if len(lines) > MAX_SHOWN:
                tag("a", "attention", f"and {len(lines) - MAX_SHOWN} more", href=self._all_at)

    def _draw(self, line: _Line) -> None:
        with tag("div", "attention"):
            tag("span", f"chip {line.tone}", line.state)
            with tag("p", "lines"):
                tag("a", "", line.name, href=line.href)
                # What a finding says has to be read before its button is pressed.
                tag("span", "sub whole" if line.finding else "sub", line.detail, title=line.detail)
            if line.finding:
                self._draw_action(line.finding)


def _draw_tiles() -> dict[VmStatus, Text]:
    tiles = {}
    with tag("div", "tiles"):
        for status in VmStatus:
            if status in GONE_VM:
                continue
            tone = " bad" if status in TROUBLE else ""
            with tag("a", "card tile" + tone, href=f"/admin/instances?status={status}"):
                tag("span", "label", VM_WORDS[status][0])
                tiles[status] = text("span", "–", "number", data_testid=f"count-{status}")
    return tiles


def _all_well(snapshot: Snapshot) -> str:
    if snapshot.vms:
        return "Nothing does: all machines are well."
    return "Nothing yet: there are no machines. Launch some, and they appear here as they come up."


def _list_attention(snapshot: Snapshot) -> list[_Line]:
    """Everything somebody should look at; what is worst comes first."""
    lines = []
    for vm in sorted(snapshot.list_real_vms(), key=lambda vm: vm.hostname):
        href, notes = f"/admin/instances/{vm.hostname}", condition_notes(vm)
        if vm.status in TROUBLE:
            lines.append(_Line("bad", VM_WORDS[vm.status][0], href, vm.hostname, trouble_reason(vm) or ""))
        elif notes:
            lines.append(_Line(notes[0]["tone"], notes[0]["text"], href, vm.hostname, sentence(notes[0]["title"])))
    for pool in sorted(snapshot.pools.values(), key=lambda pool: pool.name):
        waiting = snapshot.count_pool(pool.id).line
        if waiting and not pool.is_rehearsal:
            href = f"/admin/create?pool={pool.name}"
            lines.append(_Line("busy", "In line", href, pool.name, f"{people(waiting)} in line: launch more machines."))
    return sorted(lines, key=lambda line: line.tone != "bad")


def _list_running(snapshot: Snapshot) -> list[_Line]:
    lines = []
    for operation in sorted(snapshot.operations.values(), key=lambda each: -each.id):
        if operation.status in OPEN_OPERATION:
            state, tone = OPERATION_WORDS[operation.status]
            done = f"{count_done(operation)} of {count(len(operation.progress), 'machine')} done"
            if operation.kind is OperationKind.REBUILD:
                done = "No machine is touched"
            what = f"{KIND_WORDS[operation.kind]} in {operation.pool}"
            lines.append(_Line(tone, state, f"/admin/operations/{operation.id}", what, done))
    return lines


def _finding_line(finding: FindingView) -> _Line:
    href = f"/admin/pools/{finding.pool}/state" if finding.pool else "/admin/pools"
    return _Line(
        "bad", FINDING_WORDS[finding.kind], href, finding.hostname or finding.subject, finding.sentence, finding
    )


def _with_cost(row: Row, costs: Costs) -> Row:
    """The row of a pool with what its machines cost now."""
    mine = costs.by_pool.get(int(row["id"]))
    said = f"{money(mine.per_hour)} per hour" if mine and mine.per_hour else None
    return {**row, "cost": said, "sort": {**row["sort"], "cost": mine.per_hour if mine else 0}}
