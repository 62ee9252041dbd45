"""The birth of a machine: what it is to prepare, and how far it has come before its agent can say so itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from backend.db.engine import Database
from backend.models import Pool, Vm
from backend.services.actor import Actor
from backend.services.enrolments import authenticate_booting
from backend.services.moves import record_event
from backend.services.vm_logs import record_vm_log
from backend.states import Health

LOG_SOURCE = "boot"
_MAX_SAID = 300


@dataclass(frozen=True, slots=True)
class BootStep:
    """One step of a boot, as the machine tells it. ``lines``: the last of its log, if it failed."""

    name: str
    has_succeeded: bool
    duration_s: float
    lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a machine of a pool clones and runs before it is ready, and runs between two people."""

    repository: str | None
    startup_script: str | None
    cleaning_script: str | None = None


async def record_boot_step(db: Database, token: str, step: BootStep, *, secrets: Collection[str] = ()) -> None:
    """Writes a step of a machine's boot into its log; a failed one is a reason why the machine is unhealthy.

    The machine speaks with its enrolment token until its agent has beaten, then with the agent token.

    Raises:
        Unauthenticated: the token speaks for no machine.
    """
    machine = await authenticate_booting(db, token)
    word = "succeeded" if step.has_succeeded else "failed"
    lines = [*step.lines, f"{step.name}: {word} after {step.duration_s:.1f} s"]
    await record_vm_log(db, machine.vm_id, LOG_SOURCE, lines, secrets=secrets)
    if not step.has_succeeded:
        await _record_failure(db, machine.vm_id, step)


async def get_preparation(db: Database, vm_id: int) -> Preparation:
    """What the pool of this VM says now: a machine that boots again follows a script that was mended meanwhile."""
    async with db.transaction() as session:
        vm = await session.get_one(Vm, vm_id)
        pool = await session.get_one(Pool, vm.pool_id)
        return Preparation(pool.repository, pool.startup_script, pool.cleaning_script)


async def _record_failure(db: Database, vm_id: int, step: BootStep) -> None:
    said = next((line.strip() for line in reversed(step.lines) if line.strip()), "it said nothing")
    reason = f"the boot step '{step.name}' failed: {said[:_MAX_SAID]}"
    async with db.transaction() as session:
        vm = await session.get_one(Vm, vm_id, with_for_update=True)
        # systemd tries again every few seconds; the same failure is told once.
        if vm.health_reasons == [reason]:
            return
        vm.health, vm.health_reasons, vm.updated_at = Health.UNHEALTHY, [reason], db.now()
        record_event(
            session,
            "vm.boot_failed",
            f"{vm.hostname}: {reason}",
            actor=Actor.agent(vm.hostname),
            at=db.now(),
            pool_id=vm.pool_id,
            vm_id=vm.id,
        )
