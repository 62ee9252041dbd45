"""Small worlds for tests of services: a pool with machines that have reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import event

from backend.db.engine import Database
from backend.db.notices import Notice, NoticeListener
from backend.services.actor import Actor
from backend.services.commands import list_commands_for_agent, record_command_result
from backend.services.enrolments import announce_boot, authenticate_agent, create_enrolments
from backend.services.heartbeats import HeartbeatReport, record_heartbeats
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.vms import get_vm
from backend.states import Health, Phase

ADMIN = Actor.admin("test")


class Listener(NoticeListener):
    """Is connected, and hears what a test says."""

    def __init__(self) -> None:
        super().__init__("")
        self.connected = True

    def say(self, table: str, vm_id: int) -> None:
        """Something of this VM changed in a table."""
        for heard in self._on_notice:
            heard(Notice(table, (1,), (vm_id,)))

    def miss(self) -> None:
        """Something may have been said."""
        for missed in self._on_gap:
            missed()


def report(db: Database, vm_id: int, enrolment_id: int, **changes: object) -> HeartbeatReport:
    """A heartbeat of a healthy machine, with changes."""
    values = {
        "vm_id": vm_id,
        "enrolment_id": enrolment_id,
        "at": db.now(),
        "boot_id": "boot-1",
        "phase": Phase.READY,
        "health": Health.HEALTHY,
        "reasons": (),
        "gpus": (),
        "cpu_pct": 1.0,
        "memory_pct": 2.0,
        "disk_free_pct": 90.0,
    }
    return HeartbeatReport(**(values | changes))  # type: ignore[arg-type]


async def make_machines(db: Database, count: int, pool: str = "lab") -> list[HeartbeatReport]:
    """Machines that joined and are available; returns the heartbeat of each."""
    await ensure_pool(db, pool, PoolSpec(max=1_000), actor=ADMIN)
    reports = []
    for number, token in enumerate(await create_enrolments(db, pool, count, actor=ADMIN)):
        enrolled = await announce_boot(db, token, hostname=f"{pool}-m{number}", boot_id="boot-1", agent_version="1")
        assert enrolled.agent_token is not None
        agent = await authenticate_agent(db, enrolled.agent_token)
        reports.append(report(db, agent.vm_id, agent.enrolment_id))
    await record_heartbeats(db, reports)
    return reports


async def obey(db: Database, vm_id: int, *, succeeded: bool = True) -> list[str]:
    """The machine's agent does all there is to do; returns the kinds."""
    kinds = []
    for command in await list_commands_for_agent(db, vm_id):
        await record_command_result(
            db, vm_id, command.id, succeeded=succeeded, detail="", data={}, actor=Actor.agent("test")
        )
        kinds.append(str(command.kind))
    return kinds


async def status_of(db: Database, hostname: str) -> str:
    """The status of a machine."""
    return str((await get_vm(db, hostname)).status)


async def count_statements(db: Database, work: Callable[[], Awaitable[object]]) -> int:
    """How many statements something sends, beside the beginnings and ends of transactions."""
    sent: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        sent.append(statement)

    event.listen(db.engine.sync_engine, "before_cursor_execute", note)
    try:
        await work()
    finally:
        event.remove(db.engine.sync_engine, "before_cursor_execute", note)
    return len(sent)
