"""Machines of one's own in a pool: the line that makes one join, those that have, and how they leave."""

from __future__ import annotations

from backend.live.changes import ChangeSet, Snapshot
from backend.provisioning.agent_package import join_line
from backend.services.enrolments import create_enrolments
from backend.services.views import PoolView, VmView
from backend.states import Origin, Role, VmStatus
from lablink_ui.components import Column, CopyButton, Empty, LiveTable, Verb
from lablink_ui.components.change import Row
from lablink_ui.frame import Frame
from lablink_ui.pages.machines import act_on
from lablink_ui.parts import Field, button, tag, text
from lablink_ui.rows import vm_row
from lablink_ui.visits import Visit, attempt
from lablink_ui.words import count

_COLUMNS = (
    Column("machine", "Machine", "link"),
    Column("state", "Status", "chip", wrap=True),
    Column("researcher", "Researcher", "person", wide=1),
    Column("beat", "Last heartbeat", "ago", wide=2),
)
_VERBS = (Verb("drain", "Drain"), Verb("repair", "Bring back"), Verb("destroy", "Remove", danger=True))
_DRAINABLE = {VmStatus.AVAILABLE, VmStatus.IN_USE, VmStatus.CLEANING}


class OwnMachinesPart:
    """The section of a pool's page."""

    def __init__(self, visit: Visit, frame: Frame, pool: PoolView) -> None:
        self._visit, self._frame, self._pool = visit, frame, pool
        with tag("section", "card pad", aria_label="Your own machines"):
            tag("h2", "", "Your own machines")
            if visit.may_administer:
                self._draw_line()
            self._table = LiveTable(
                "Machines that joined",
                _COLUMNS,
                empty=Empty("None has joined", "A machine you have appears here once its line has run."),
                verbs=_VERBS if visit.may_operate else (),
                searchable=False,
                on_act=self._act,
                on_resync=lambda: self.show(visit.house.live.snapshot),
            )

    def show(self, snapshot: Snapshot, changes: ChangeSet | None = None) -> None:
        """Shows those that joined."""
        if changes is None:
            self._table.reset([_row(vm) for vm in snapshot.vms.values() if self._is_own(vm)])
            return
        self._table.patch([_row(vm) for vm in changes.vms.upserts if self._is_own(vm)], changes.vms.removals)

    def _is_own(self, vm: VmView) -> bool:
        return vm.pool_id == self._pool.id and vm.origin is Origin.JOINED

    def _draw_line(self) -> None:
        tag("p", "sub", "A Linux machine of yours, with Python 3.11, joins this pool by a line that is run on it.")
        number = Field("Number of machines", name="tokens", kind="number", value="1", min=1, testid="enrolment-count")
        button("Make a line", lambda: attempt(make), testid="enrolment-submit", classes="start")
        with tag("div", "stack") as made:
            tag("p", "sub", "Shown this once: copy it now. A line works for one machine, once, within a day.")
            shown = text("pre", "", "mono secret", data_testid="enrolment-lines")
            copy = CopyButton("Copy")
            tag("p", "sub", "It fetches the agent, checks its SHA-256, and joins. In a root shell the agent becomes a "
                "service, and each session has a user of its own; else it is a process of yours, and sessions run as "
                "you: have only people there whom you trust.")  # fmt: skip
        made.set_visibility(False)

        async def make() -> str:
            actor, house = await self._visit.actor(Role.ADMIN), self._visit.house
            tokens = await create_enrolments(house.db, self._pool.name, int(number.number()), actor=actor)
            lines = "\n\n".join(join_line(house.settings.public_url, token) for token in tokens)
            shown.say(lines)
            copy.hold(lines)
            made.set_visibility(True)
            return f"{count(len(tokens), 'line')} made"

    async def _act(self, verb: str, hostnames: list[str]) -> None:
        if await act_on(self._visit, self._frame.ask, verb, hostnames):
            self._table.run_method("clearSelection")


def _row(vm: VmView) -> Row:
    may_drain = vm.status in _DRAINABLE and not vm.is_draining
    return {**vm_row(vm), "actions": [*vm.actions, *(["drain"] if may_drain else [])]}
