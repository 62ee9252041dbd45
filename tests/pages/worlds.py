"""A workshop in full swing, made with the services: machines, seats and operations in every state they know.

Built before the server starts, so that no sweep of it meets a half-built world.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from sqlalchemy import text, update

from backend.db.engine import Database
from backend.models import Command, HealingBreaker, Rehearsal, RehearsalMachine, Repair, Vm
from backend.services.actor import Actor
from backend.services.alarm_rules import Seen
from backend.services.alarms import acknowledge_alarms, apply_rules, list_open_alarms, record_own
from backend.services.aws_spec import AwsSpec
from backend.services.budgets import set_budget, watch_budgets
from backend.services.claims import release_own_claim, request_claim
from backend.services.commands import list_commands_for_agent, record_command_result
from backend.services.crd_results import record_command_progress
from backend.services.destroys import request_destroy
from backend.services.enrolments import announce_boot, create_vm_enrolments
from backend.services.findings import Found, list_pool_facts, record_findings
from backend.services.healing_limits import HealingLimits
from backend.services.healing_marks import KEPT_FOR
from backend.services.heartbeats import HeartbeatReport, record_heartbeats
from backend.services.lead_times import BootTimes
from backend.services.operations import request_cancel, request_launch
from backend.services.pools import PoolSpec, ensure_pool, get_pool, set_pool_open
from backend.services.rehearsal_need import Expected, plan
from backend.services.rehearsal_verdict import Reason
from backend.services.runs import LogLine, Progress, begin_run, finish_run, record_log, record_progress
from backend.services.schedule_runs import keep_schedules
from backend.services.schedules import ScheduleSpec, create_schedule, pause_schedule
from backend.services.tokens import hash_token, new_token
from backend.services.views import OperationView
from backend.services.vm_logs import LogBatch, record_vm_log, record_vm_logs
from backend.services.vms import get_vm, list_vms, record_silence
from backend.setting_keys import AlarmSettings
from backend.states import (
    AlarmKind,
    FindingKind,
    Health,
    OperationStatus,
    Phase,
    ProgressState,
    RehearsalStatus,
    RehearsalStep,
    RepairFault,
    RepairOutcome,
    Rung,
    Severity,
    Verdict,
)

# For the server of such a world: nobody works on its jobs, and its machines are silent for a reason.
# Its provider of sign-ins is one that nobody asks.
SETTINGS = (
    "jobs.in_process=false",
    "healing.at_once=0",
    "agent.unreachable_after_s=3600",
    "live.backup_poll_s=300",
    # Pools may be on AWS, which nobody answers for.
    "aws.region=us-west-2",
    "aws.endpoint_url=http://127.0.0.1:9",
    "oidc.issuer=http://127.0.0.1:9",
    "oidc.client_id=lablink",
)
KIM = Actor.admin("kim", "192.0.2.17")
# The worker of another host: nobody here can know whether it lives.
WORKER = "elsewhere:1:1"
LONG_EMAIL = "maximiliane.featherstonehaugh-cholmondeley@department-of-computational-neuroscience.example.org"
LONG_REASON = (
    "could not prepare a session: docker: Error response from daemon: failed to create task for container: "
    "failed to create shim task: OCI runtime create failed: nvidia-container-cli: initialization error: "
    "driver/library version mismatch"
)
EMAILS = ("ada@lab.org", "bob@lab.org", "chen@lab.org", LONG_EMAIL, "dara@lab.org", "emil@lab.org", "fay@lab.org")


class PastClock:
    """A clock that may be set back, so that a world has a past."""

    def __init__(self) -> None:
        self.back = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) - self.back


@dataclass
class World:
    """What tests ask for by name. ``seats`` maps a claim's state to the browser secret that owns it.

    ``words`` are parts of addresses: codes, links, names of machines.
    """

    db: Database
    clock: PastClock
    seats: dict[str, str] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


async def furnish(url: str) -> World:
    """Fills a fresh database."""
    clock = PastClock()
    world = World(Database(url, now=clock), clock)
    await ensure_pool(world.db, "default", PoolSpec(), actor=KIM)
    await ensure_pool(world.db, "genomics", PoolSpec(max=24, price_per_hour=0.526), actor=KIM)
    await ensure_pool(world.db, "vision", PoolSpec(max=8, price_per_hour=1.212), actor=KIM)
    await ensure_pool(world.db, "retired", PoolSpec(max=4), actor=KIM)
    await set_pool_open(world.db, "retired", is_open=False, actor=KIM)
    await _genomics(world)
    await _vision(world)
    await _line(world)
    await _cloud(world)
    await wait_for_ever(world.db)
    await _classes(world)
    await _healing(world)
    await _rehearsal(world)
    await _alarms(world)
    return world


async def _alarms(world: World) -> None:
    """What the rules see in all this, one that somebody has seen to, one of the server's, and one that is over."""
    db, limits = world.db, AlarmSettings(quiet_s=0)
    disk = Seen(AlarmKind.SERVER, "disk", Severity.CRITICAL, "The disk of lab-server:8080 has 3 % left.", "Make room.")
    world.clock.back = timedelta(minutes=4)
    await record_own(db, "lab-server:8081", [disk], limits)
    world.clock.back = timedelta(minutes=2)
    await record_own(db, "lab-server:8081", [], limits)
    world.clock.back = timedelta()
    await record_own(db, "lab-server:8080", [disk], limits)
    await apply_rules(db, limits, HealingLimits(at_once=0))
    lines = [alarm.id for alarm in await list_open_alarms(db) if alarm.kind is AlarmKind.LINE]
    await acknowledge_alarms(db, lines, actor=KIM)


async def wait_for_ever(db: Database) -> None:
    """What waits for an agent goes on waiting, however long the world is looked at."""
    async with db.transaction() as session:
        await session.execute(update(Command).values(deadline_at=db.now() + timedelta(days=2)))


async def crowd(url: str, count: int = 500) -> Database:
    """A pool ``lecture`` with this many machines, every fifth in use."""
    db = Database(url)
    await ensure_pool(db, "lecture", PoolSpec(max=1_000), actor=KIM)
    await launch(db, "lecture", count)
    for number in range(count // 5):
        await request_claim(db, "lecture", f"student{number:03d}@lecture.example.org", owner_hash=None)
    full = [
        Seen(AlarmKind.SERVER, f"disk {number}", Severity.WARNING, f"Disk {number} has 9 % left.", "Make room.")
        for number in range(count // 10)
    ]
    await record_own(db, "rack:8080", full, AlarmSettings())
    return db


async def launch(db: Database, pool: str, count: int) -> OperationView:
    """Machines that were made and answer."""
    operation = await request_launch(db, pool, count, actor=KIM)
    await begin_run(db, operation.id, owner=WORKER)
    await _say(db, operation.id, *(_made(name) for name in operation.hostnames[:50]))
    await finish_run(
        db,
        operation.id,
        owner=WORKER,
        status=OperationStatus.SUCCEEDED,
        reason=None,
        existing=operation.hostnames,
    )
    await beat(db, operation.hostnames)
    return operation


async def beat(db: Database, hostnames: Sequence[str], **changes: Any) -> None:
    """A heartbeat of each; figures differ from machine to machine and stay the same from run to run."""
    reports, vms = [], {vm.hostname: vm for vm in await list_vms(db)}
    for vm in (vms[hostname] for hostname in hostnames):
        number, busy = vm.id, 7 + (vm.id * 37) % 90
        gpu = {
            "index": 0,
            "name": "NVIDIA T4",
            "utilisation_pct": float(busy),
            "memory_used_mb": 160.0 * busy,
            "memory_total_mb": 16_384.0,
            "temperature_c": 40.0 + busy / 2,
        }
        values = {
            "vm_id": vm.id,
            "enrolment_id": 0,
            "at": db.now(),
            "boot_id": f"6f1c2b7e-{vm.id:04d}",
            "phase": Phase.READY,
            "health": Health.HEALTHY,
            "reasons": (),
            "gpus": (gpu,),
            "cpu_pct": 3.0 + (number * 23) % 80,
            "memory_pct": 12.0 + (number * 11) % 60,
            "disk_free_pct": 81.0 - number % 30,
        }
        reports.append(HeartbeatReport(**(values | changes)))
    await record_heartbeats(db, reports)


async def claim(world: World, pool: str, email: str, *, seat: str = "") -> str:
    """Claims; returns the browser's secret, kept under ``seat`` as well."""
    secret = new_token()
    await request_claim(world.db, pool, email, owner_hash=hash_token(secret), address="198.51.100.7")
    if seat:
        world.seats[seat] = secret
    return secret


async def release(world: World, pool: str, secret: str) -> None:
    """Gives the seat (or the place in line) of this browser back."""
    result = await request_claim(world.db, pool, "again@lab.org", owner_hash=hash_token(secret))
    await release_own_claim(world.db, result.claim.id, owner_hash=hash_token(secret))


async def obey(world: World, hostname: str, *, detail: str = "") -> None:
    """The machine's agent does all there is to do, or (with ``detail``) fails at it."""
    vm = await get_vm(world.db, hostname)
    for command in await list_commands_for_agent(world.db, vm.id):
        await record_command_result(
            world.db,
            vm.id,
            command.id,
            succeeded=not detail,
            detail=detail,
            data={},
            actor=Actor.agent(hostname, "203.0.113.9"),
        )


async def _genomics(world: World) -> None:
    """The pool that a workshop is using: machines of every kind."""
    db, clock = world.db, world.clock
    clock.back = timedelta(hours=2, minutes=12)
    made = await launch(db, "genomics", 12)
    world.operations["succeeded"] = made.id
    names = made.hostnames
    clock.back = timedelta(minutes=95)
    await _talk(db, names[0])
    for email in EMAILS[:5]:
        await claim(world, "genomics", email, seat="active" if email == EMAILS[0] else "")
    gil, hana = [await claim(world, "genomics", f"{name}@lab.org") for name in ("gil", "hana")]
    for name in names[:7]:
        await obey(world, name)
    clock.back = timedelta(minutes=50)
    await beat(db, names[1:2])
    clock.back = timedelta(minutes=20)
    others = [names[0], *names[2:]]
    await beat(db, others)
    await release(world, "genomics", gil)
    await obey(world, names[5], detail="umount: /home/researcher: target is busy")
    clock.back = timedelta(minutes=3)
    await beat(db, names[8:9], health=Health.UNHEALTHY, reasons=("the container lablink-desktop is exited (137)",))
    await request_destroy(db, [names[9]], actor=KIM)
    clock.back = timedelta()
    await beat(db, others)
    await record_silence(db, after_s=1_800)
    await beat(db, names[2:3], health=Health.DEGRADED, reasons=("GPU 0 is at 88 °C",))
    await beat(db, names[8:9], health=Health.UNHEALTHY, reasons=("the container lablink-desktop is exited (137)",))
    hot = {"index": 0, "name": "NVIDIA T4", "utilisation_pct": 97.0, "temperature_c": 93.0}
    await beat(db, names[:1], gpus=(hot,), disk_free_pct=4.0, disk_free_gb=3.9, skew_s=-600.0)
    await release(world, "genomics", hana)
    await _clean(db, names[6])
    await claim(world, "genomics", "ines@lab.org", seat="preparing")
    await _running(world)


async def _clean(db: Database, hostname: str) -> None:
    """Its agent is at the second step of cleaning."""
    vm = await get_vm(db, hostname)
    (command,) = await list_commands_for_agent(db, vm.id)
    step = "The cleaning script runs."
    await record_command_progress(db, vm.id, command.id, detail=step, actor=Actor.agent(hostname, "203.0.113.9"))


async def _running(world: World) -> None:
    """A launch half-way."""
    db = world.db
    operation = await request_launch(db, "genomics", 4, actor=KIM)
    world.operations["running"] = operation.id
    await begin_run(db, operation.id, owner=WORKER)
    first, second, *_ = operation.hostnames
    await _say(db, operation.id, "Plan: 4 to add, 0 to change, 0 to destroy.", _made(first))
    await record_progress(
        db,
        operation.id,
        owner=WORKER,
        progress={
            first: Progress(ProgressState.DONE, None, 41),
            second: Progress(ProgressState.RUNNING, "Still creating...", 38),
        },
    )


async def _vision(world: World) -> None:
    """The pool where things go wrong."""
    db, clock = world.db, world.clock
    clock.back = timedelta(hours=1)
    failed = await request_launch(db, "vision", 2, actor=KIM)
    world.operations["failed"] = failed.id
    await begin_run(db, failed.id, owner=WORKER)
    why = "Error: creating the machine: the region has no capacity for this machine type right now"
    await record_log(db, failed.id, [LogLine(db.now(), "error", why)])
    broken = {failed.hostnames[0]: Progress(ProgressState.FAILED, why, 12)}
    await record_progress(db, failed.id, owner=WORKER, progress=broken)
    await finish_run(
        db,
        failed.id,
        owner=WORKER,
        status=OperationStatus.FAILED,
        reason=f"terraform apply failed: {why}",
        existing=failed.hostnames[1:],
    )
    clock.back = timedelta(minutes=40)
    lost = await launch(db, "vision", 2)
    await claim(world, "vision", "jo@lab.org", seat="failed")
    await claim(world, "vision", "kai@lab.org", seat="released")
    await release(world, "vision", world.seats["released"])
    for name in lost.hostnames:
        await obey(world, name)
    destroyed = (await request_destroy(db, lost.hostnames[:1], actor=KIM))[0]
    await begin_run(db, destroyed.id, owner=WORKER)
    await finish_run(db, destroyed.id, owner=WORKER, status=OperationStatus.SUCCEEDED, reason=None, existing=())
    await record_vm_log(db, (await get_vm(db, lost.hostnames[0])).id, "workload", ["the last words of a machine"])
    await beat(db, lost.hostnames[1:])
    await claim(world, "vision", "lea@lab.org")
    await obey(world, lost.hostnames[1], detail=LONG_REASON.partition(": ")[2])
    cancelled = await request_launch(db, "vision", 1, actor=KIM)
    world.operations["cancelled"] = cancelled.id
    await request_cancel(db, cancelled.id, actor=KIM)
    clock.back = timedelta()
    world.operations["queued"] = (await request_launch(db, "vision", 1, actor=KIM)).id


async def _healing(world: World) -> None:
    """What was tried on a machine, a seat that left its own behind, and a pool in which healing stopped."""
    db, at = world.db, world.db.now()
    mended, left = await get_vm(db, "vision-004"), await get_vm(db, "genomics-006")
    pool, minute = await get_pool(db, "retired"), timedelta(minutes=1)
    tried = ((Rung.RESTART, 20, "this machine has no workload that could be restarted"), (Rung.REBOOT, 15, LONG_REASON))
    async with db.transaction() as session:
        for rung, ago, reason in tried:
            session.add(
                Repair(
                    pool_id=mended.pool_id,
                    vm_id=mended.id,
                    rung=rung,
                    is_last=False,
                    began_at=at - ago * minute,
                    deadline_at=at,
                    ended_at=at - (ago - 3) * minute,
                    outcome=RepairOutcome.FAILED,
                    fault=RepairFault.NOT_WELL,
                    reason=reason,
                )
            )
        why = "new machines could not be made, the last time: retired-009: no capacity for this machine type"
        trial_at = at + 10 * minute
        session.add(HealingBreaker(pool_id=pool.id, opened_at=at, reason=why, trial_at=trial_at, trials=0))
        claim_id = await session.scalar(text("SELECT id FROM claims WHERE email = 'ines@lab.org'"))
        kept = update(Vm).where(Vm.id == left.id).values(facts=Vm.facts.op("||")({KEPT_FOR: claim_id}))
        await session.execute(kept)


async def _rehearsal(world: World) -> None:
    """What a rehearsal found yesterday evening: one machine that fails, one that was not tried, arrivals replayed."""
    db, at = world.db, world.db.now()
    pool = await get_pool(db, "genomics")
    boots = BootTimes(measured=12, median_s=74.2, slow_s=131.0, lead_s=191)
    need = plan(Expected(30, 900, at + timedelta(hours=11), "Europe/Berlin"), 9, 4, pool.max, boots)
    why = "the check command ended with exit status 9"
    said = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    found = {
        "genomics-003": (RehearsalStep.CLEAN, "terminal", "GPU 0: NVIDIA T4", None),
        "genomics-004": (RehearsalStep.CLEAN, "terminal", said, why),
        "genomics-005": (RehearsalStep.SKIPPED, None, None, "somebody uses it, so that it works for them"),
    }
    vms = [(await get_vm(db, hostname)).id for hostname in found]
    reasons = [
        Reason(True, f"genomics-004: {why}.", "Repeat the command in a terminal of the machine, then rehearse again."),
        Reason(False, "11 machines are to be launched.", "Launch by Monday 11 January 08:50 CET, by hand."),
    ]
    replayed = {"state": "replayed", "verdict": "ok", "people": 30, "agents": 24, "within_s": 300, "seated": 24,
                "in_line": 6, "errors": 0, "join_to_seat_ms": {"p50": 310.0, "p95": 1_240.0, "p99": 1_600.0},
                "reasons": []}  # fmt: skip
    async with db.transaction() as session:
        rehearsal = Rehearsal(
            pool_id=pool.id,
            status=RehearsalStatus.FINISHED,
            people=30,
            over_s=900,
            starts_at=at + timedelta(hours=11),
            zone="Europe/Berlin",
            created_by=KIM.name,
            created_at=at - timedelta(minutes=20),
            deadline_at=at,
            ended_at=at - timedelta(minutes=5),
            verdict=Verdict.NO_GO,
            need=need.as_json(),
            arrivals=replayed,
            reasons=[each.as_json() for each in reasons],
        )
        session.add(rehearsal)
        await session.flush()
        for vm_id, (step, connection, line, problem) in zip(vms, found.values(), strict=True):
            session.add(
                RehearsalMachine(
                    rehearsal_id=rehearsal.id,
                    vm_id=vm_id,
                    step=step,
                    step_at=at,
                    connection=connection,
                    said=line,
                    problem=problem,
                    remedy="Look at its log, then repair or replace it." if problem == why else None,
                    ended_at=at,
                )
            )


async def _line(world: World) -> None:
    """Three people in line for a pool without machines; the third is ours. (Lea waits in the other pool.)"""
    world.clock.back = timedelta(minutes=4)
    for email in ("mia@lab.org", "noa@lab.org"):
        await claim(world, "default", email)
    await claim(world, "default", "ola@lab.org", seat="waiting")
    world.clock.back = timedelta()


async def _cloud(world: World) -> None:
    """A pool on AWS that is empty, and where what is known of AWS and what is known here disagree."""
    spec = AwsSpec(instance_types=("g4dn.xlarge",))
    pool = await ensure_pool(
        world.db, "cloud", PoolSpec(provider="aws", providers=("aws",), max=40, aws=spec), actor=KIM
    )
    pools = await list_pool_facts(world.db, "aws")
    machine = {"machine_id": "i-0a1b2c3d4e5f60718", "hostname": "cloud-007", "kind": "g4dn.xlarge"}
    found = [
        Found(pool.id, FindingKind.STATE_LOST, "cloud", "Terraform's state of pool cloud is missing or cannot be read: "
              "nothing can be launched or destroyed in it as it should be."),
        Found(pool.id, FindingKind.STRANGER, "i-0a1b2c3d4e5f60718", "i-0a1b2c3d4e5f60718 (cloud-007, g4dn.xlarge) is "
              "tagged as ours, but no machine of that name is known here.", machine),
    ]  # fmt: skip
    await record_findings(world.db, "aws", found, looked_at=pools)


async def _classes(world: World) -> None:
    """A class that runs, one that was missed this morning, one that is paused; money that is half and wholly spent."""
    db, clock, today = world.db, world.clock, datetime.now(UTC).date()
    daily = {"weekdays": tuple(range(7)), "first_on": today - timedelta(days=30), "skips": frozenset()}
    clock.back = timedelta(hours=1)
    now = db.now().time().replace(second=0, microsecond=0, tzinfo=None)
    clock.back = timedelta(minutes=65)
    running = ScheduleSpec(
        "Genomics 101", "UTC", starts=now, stops=now.replace(hour=(now.hour + 9) % 24), count=5, **daily
    )
    await create_schedule(db, "genomics", running, actor=KIM)
    await keep_schedules(db)
    clock.back = timedelta(minutes=59)
    await keep_schedules(db)
    clock.back = timedelta(days=2)
    long = "Introduction to Computational Neuroscience for Everybody"
    missed = ScheduleSpec(
        long, "America/Argentina/Buenos_Aires", starts=time(0, 5), stops=time(23, 55), count=4, **daily
    )
    await create_schedule(db, "retired", missed, actor=KIM)
    clock.back = timedelta()
    await keep_schedules(db)
    evening = ScheduleSpec("Evening lab", "Europe/Berlin", starts=time(18), stops=time(21), count=4, **daily)
    paused = await create_schedule(db, "vision", evening, actor=KIM)
    await pause_schedule(db, paused.id, is_paused=True, actor=KIM)
    await set_budget(db, "genomics", 250, actor=KIM)
    await set_budget(db, "vision", 0.01, actor=KIM)
    async with db.transaction() as session:
        await session.execute(text("UPDATE budgets SET counts_from = now() - interval '1 day'"))
    await watch_budgets(db)


async def _talk(db: Database, hostname: str) -> None:
    """A machine with a past: boots, a log, and an afternoon of measurements."""
    vm = await get_vm(db, hostname)
    tokens = await create_vm_enrolments(db, [vm.id], actor=KIM)
    await announce_boot(db, tokens[vm.id], hostname=hostname, boot_id="6f1c2b7e-0001", agent_version="0.1.0")
    lines = ["agent 0.1.0 started", "cloning https://git.example.org/course.git", "the workload is ready"]
    await record_vm_log(db, vm.id, "agent", lines)
    await record_vm_log(db, vm.id, "startup", ["Fetching reference genome …", "done in 41 s"])
    said = ["INFO epoch 1 of 90, loss 2.31", "DEBUG loader: 8 workers", "WARNING loss is nan, step skipped",
            "ERROR CUDA out of memory: tried to allocate 2.00 GiB", "INFO going on with half the batch"]  # fmt: skip
    await record_vm_logs(db, [LogBatch(vm.id, "workload", said, stream="s", first_seq=12_346)])
    for minute in range(90, 0, -2):
        at = datetime.now(UTC) - timedelta(minutes=minute)
        await beat(db, [hostname], at=at, cpu_pct=20.0 + (minute * 7) % 55, memory_pct=30.0 + minute / 3)


async def _say(db: Database, operation_id: int, *messages: str) -> None:
    await record_log(db, operation_id, [LogLine(db.now(), "info", message) for message in messages])


def _made(hostname: str) -> str:
    return f'terraform_data.vm["{hostname}"]: Creation complete after 41s'
