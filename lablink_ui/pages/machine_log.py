"""The part of a machine's page that shows its log: what its agent ships, and what Terraform says about it."""

from __future__ import annotations

from collections import deque
from urllib.parse import quote

from backend.live.changes import ChangeSet, Snapshot
from backend.services.operation_logs import list_terraform_lines
from backend.services.views import LogLineView, VmView
from backend.services.vm_logs import LogCursor, iterate_vm_log
from lablink_ui.components import LogView
from lablink_ui.rows import log_line
from lablink_ui.visits import Reader, Visit

# What a page is sent at most at once; it keeps as many.
HEAD, TAIL = 2_000, 18_000


class MachineLog:
    """Reads only while somebody looks: at the start all there is, then what is new."""

    def __init__(self, visit: Visit, vm: VmView) -> None:
        self._db, self._vm = visit.house.db, vm
        href = f"/admin/instances/{quote(vm.hostname, safe='')}/log.txt?vm={vm.id}"
        self._view = LogView("Log", testid="vm-log", href=href)
        self._cursor, self._terraform_id = LogCursor(), 0
        self._wants_terraform = True
        self._reader = Reader(self._read)

    def ask(self) -> None:
        """Asks for what there is."""
        self._reader.ask()

    def follow(self, snapshot: Snapshot, changes: ChangeSet) -> None:
        """Asks for more, if there is more about this machine."""
        operations = (snapshot.operations.get(each) for each in changes.logged_operations)
        if any(each and self._vm.hostname in each.hostnames for each in operations):
            self._wants_terraform = True
        if self._wants_terraform or self._vm.id in changes.logged_vms:
            self._reader.ask()

    async def _read(self) -> None:
        waiting = deque(await self._read_terraform())
        async for lines in iterate_vm_log(self._db, self._vm.id, self._cursor, head=HEAD, tail=TAIL):
            earlier = []
            while waiting and waiting[0].at <= lines[0].at:
                earlier.append(waiting.popleft())
            self._show("terraform", earlier)
            self._show("vm", lines)
        self._show("terraform", list(waiting))

    async def _read_terraform(self) -> list[LogLineView]:
        if not self._wants_terraform:
            return []
        self._wants_terraform = False
        lines = await list_terraform_lines(self._db, self._vm.id, self._vm.hostname, after_id=self._terraform_id)
        self._terraform_id = lines[-1].id if lines else self._terraform_id
        return lines

    def _show(self, kind: str, lines: list[LogLineView]) -> None:
        self._view.append([log_line(line) for line in lines], kind)
