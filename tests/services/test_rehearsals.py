"""Rehearsals: what a class needs, robots that sit at machines and give way to people, and the verdict."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.errors import Conflict, InvalidInput, Unauthenticated
from backend.models import Schedule, ScheduleRun
from backend.services.actor import Actor
from backend.services.claims import get_claim, list_claims, request_claim
from backend.services.commands import expire_commands, list_commands_for_agent, record_command_result
from backend.services.enrolments import announce_boot, create_enrolments
from backend.services.heartbeats import HeartbeatReport
from backend.services.lead_times import BootTimes
from backend.services.operations import request_launch
from backend.services.pools import PoolSpec, create_pool, ensure_pool, get_pool, list_pools, spec_of, update_pool
from backend.services.refills import refill_pools
from backend.services.rehearsal_arrivals import begin_replay, find_due_replay, record_replay
from backend.services.rehearsal_need import Expected, Need, plan
from backend.services.rehearsal_runs import carry_on_rehearsals
from backend.services.rehearsal_verdict import judge
from backend.services.rehearsals import (
    RehearsalRules,
    RehearsalView,
    end_rehearsal,
    get_rehearsal,
    preview_need,
    start_rehearsal,
)
from backend.services.sign_in import authenticate_api_token
from backend.services.terminals import record_connected
from backend.services.throttles import Throttle
from backend.services.vms import get_vm_by_id, list_vms, record_silence
from backend.settings import load_settings
from backend.states import ClaimStatus, RehearsalStatus, RehearsalStep, RunStatus, Verdict, VmStatus
from backend.tasks.rehearser import Rehearser
from tests.conftest import Clock
from tests.services.healing_world import HealingLimits, World
from tests.services.worlds import ADMIN, make_machines, obey, status_of

RULES = RehearsalRules(at_once=2)
NINE = datetime(2027, 1, 11, 9, tzinfo=UTC)
FAST = BootTimes(measured=12, median_s=90, slow_s=120, lead_s=180)


async def begin(db: Database, people: int = 1, *, rules: RehearsalRules = RULES) -> RehearsalView:
    expected = Expected(people, 600, db.now() + timedelta(hours=12))
    return await start_rehearsal(db, "lab", expected, rules, with_arrivals=False, actor=ADMIN)


async def play(db: Database, rehearsal: RehearsalView, machines: list[HeartbeatReport], *, fails: str = "") -> None:
    """Robots and agents take turns until nothing more happens; the check fails on the machine named."""
    for _ in range(30):
        await carry_on_rehearsals(db, RULES)
        for machine in machines:
            await answer(db, machine, fails=fails)
        if (await get_rehearsal(db, rehearsal.id)).status is RehearsalStatus.FINISHED:
            break
    assert (await get_rehearsal(db, rehearsal.id)).status is RehearsalStatus.FINISHED


async def answer(db: Database, machine: HeartbeatReport, *, fails: str = "") -> list[str]:
    """One agent does all that it is asked for, as real ones do."""
    kinds = []
    for command in await list_commands_for_agent(db, machine.vm_id):
        kinds.append(str(command.kind))
        data: dict[str, object] = {}
        if command.kind == "open_terminal":
            await record_connected(db, machine.vm_id, command.payload["terminal_id"], "user")
        if "command" in command.payload:
            hostname = (await get_vm_by_id(db, machine.vm_id)).hostname
            data = {"exit_status": 3 if hostname == fails else 0, "lines": ["no GPU", "password=hunter22"]}
        await record_command_result(
            db, machine.vm_id, command.id, succeeded=True, detail="", data=data, actor=Actor.agent("test")
        )
    return kinds


def of(rehearsal: RehearsalView, hostname: str):
    return next(machine for machine in rehearsal.machines if machine.hostname == hostname)


def test_missing_machines_are_launched_before_the_first_person_would_find_none() -> None:
    class_of_30 = Expected(30, 600, NINE)
    need = plan(class_of_30, up=12, coming=3, most=40, boots=FAST)
    assert (need.needed, need.to_launch) == (30, 15)
    # The sixteenth of thirty comes when half of the ten minutes are over.
    assert need.short_at == NINE + timedelta(minutes=5)
    assert need.launch_at == need.short_at - timedelta(seconds=180)
    assert Need.of(need.as_json()) == need
    enough = plan(class_of_30, up=30, coming=0, most=40, boots=FAST)
    assert (enough.to_launch, enough.short_at, enough.launch_at) == (0, None, None)
    # What the pool may not have is not to be launched.
    assert plan(class_of_30, up=12, coming=0, most=20, boots=FAST).to_launch == 8


async def test_the_time_to_launch_rests_on_what_the_pools_machines_took_so_far(db: Database, clock: Clock) -> None:
    await create_pool(db, "fresh", PoolSpec(max=9), actor=ADMIN)
    expected = Expected(4, 0, db.now() + timedelta(hours=3))
    unknown = await preview_need(db, "fresh", expected, default_lead_s=600)
    assert (unknown.boots.measured, unknown.boots.slow_s, unknown.boots.lead_s) == (0, None, 600)
    world = World(db, clock, HealingLimits())
    await world.open_pool(3, max=9)
    async with db.transaction() as session:
        await session.execute(text("UPDATE vms SET created_at = created_at - interval '200 s'"))
    known = await preview_need(db, "lab", expected, default_lead_s=600)
    assert known.boots.measured == 3
    assert 260 <= known.boots.lead_s <= 270
    assert known.launch_at == expected.starts_at - timedelta(seconds=known.boots.lead_s)


@pytest.mark.parametrize("wrong", [{"people": 0}, {"people": 2_001}, {"over_s": 90_000}, {"starts_at": NINE}])
async def test_what_no_class_is_is_refused(db: Database, wrong: dict[str, object]) -> None:
    await make_machines(db, 1)
    expected = replace(Expected(5, 600, db.now()), **wrong)
    if "starts_at" in wrong:
        expected = replace(expected, starts_at=db.now() + timedelta(days=90))
    with pytest.raises(InvalidInput):
        await start_rehearsal(db, "lab", expected, RULES, with_arrivals=False, actor=ADMIN)


async def test_robots_try_every_machine_and_one_whose_check_fails_is_named_until_it_is_mended(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=9, terminal=True, crd=True, check_command="nvidia-smi"), actor=ADMIN)
    machines = await make_machines(db, 3)
    rehearsal = await begin(db, people=3)
    with pytest.raises(Conflict):
        await begin(db)
    await carry_on_rehearsals(db, RULES)
    robots = await list_claims(db, only_open=True)
    assert sorted(robot.email for robot in robots) == [f"rehearsal-lab-m{n}@robot.invalid" for n in range(2)]
    await play(db, rehearsal, machines, fails="lab-m1")
    seen = await get_rehearsal(db, rehearsal.id)
    assert [machine.status for machine in seen.machines] == ["passed", "failed", "passed"]
    failed = of(seen, "lab-m1")
    assert failed.step is RehearsalStep.CLEAN
    assert failed.connection == "terminal and Chrome Remote Desktop"
    assert failed.problem == "the check command ended with exit status 3"
    assert failed.said == "no GPU\npassword=[secret]"
    assert seen.verdict is Verdict.NO_GO
    against = [reason for reason in seen.reasons if reason.is_against]
    assert [reason.what for reason in against] == ["lab-m1: the check command ended with exit status 3."]
    assert "terminal" in against[0].remedy
    again = await begin(db, people=3)
    await play(db, again, machines)
    assert (await get_rehearsal(db, again.id)).verdict is Verdict.GO
    assert {await status_of(db, f"lab-m{number}") for number in range(3)} == {VmStatus.AVAILABLE}
    assert await list_claims(db, only_open=True) == []


async def test_robots_give_way_when_a_person_finds_no_machine_and_take_none_while_one_waits(db: Database) -> None:
    machines = await make_machines(db, 2)
    rehearsal = await begin(db)
    await carry_on_rehearsals(db, RULES)
    person = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"a" * 32)).claim
    assert person.status is ClaimStatus.WAITING
    # One robot goes, the other may stay; and none takes the machine that is being cleaned for the person.
    await carry_on_rehearsals(db, RULES)
    statuses = [await status_of(db, f"lab-m{number}") for number in range(2)]
    assert sorted(statuses) == [VmStatus.CLEANING, VmStatus.IN_USE]
    for machine in machines:
        await answer(db, machine)
    assert (await get_claim(db, person.id)).status is ClaimStatus.PREPARING
    await play(db, rehearsal, machines)
    seen = await get_rehearsal(db, rehearsal.id)
    assert sorted(machine.status for machine in seen.machines) == ["passed", "skipped"]
    assert (await get_claim(db, person.id)).status is ClaimStatus.ACTIVE


async def test_a_robot_takes_no_machine_past_somebody_who_stands_in_line(db: Database) -> None:
    await make_machines(db, 1)
    async with db.transaction() as session:
        await session.execute(text("UPDATE vms SET unreachable_since = now()"))
    person = (await request_claim(db, "lab", "ada@lab.org", owner_hash=b"a" * 32)).claim
    async with db.transaction() as session:
        # It answers again, and nobody has served the line yet.
        await session.execute(text("UPDATE vms SET unreachable_since = NULL"))
    await begin(db)
    await carry_on_rehearsals(db, RULES)
    assert [claim.id for claim in await list_claims(db, only_open=True)] == [person.id]
    assert await status_of(db, "lab-m0") == VmStatus.AVAILABLE


async def test_a_robot_that_cannot_sit_down_stands_in_nobodys_line(db: Database) -> None:
    machine, other = await make_machines(db, 2)
    rehearsal = await begin(db, rules=replace(RULES, at_once=1))
    await carry_on_rehearsals(db, replace(RULES, at_once=1))
    await obey(db, machine.vm_id, succeeded=False)
    assert await list_claims(db, only_open=True) == []
    await play(db, rehearsal, [other])
    seen = await get_rehearsal(db, rehearsal.id)
    assert [each.status for each in seen.machines] == ["failed", "passed"]
    assert "could not prepare a session" in (seen.machines[0].problem or "")


async def test_a_machine_that_falls_silent_or_is_not_clean_afterwards_is_named(db: Database, clock: Clock) -> None:
    _, dirty = await make_machines(db, 2)
    rehearsal = await begin(db)
    await carry_on_rehearsals(db, RULES)
    await answer(db, dirty)
    clock.advance(60)
    await record_silence(db, after_s=50)
    async with db.transaction() as session:
        await session.execute(text("UPDATE vms SET unreachable_since = NULL WHERE hostname = 'lab-m1'"))
    for _ in range(4):
        await carry_on_rehearsals(db, RULES)
        await obey(db, dirty.vm_id, succeeded=False)
    clock.advance(301)
    await expire_commands(db)
    await carry_on_rehearsals(db, RULES)
    seen = await get_rehearsal(db, rehearsal.id)
    assert (of(seen, "lab-m0").problem or "").startswith("it stopped answering; then ")
    assert (of(seen, "lab-m1").problem or "").startswith("it was not clean afterwards: ")
    assert seen.verdict is Verdict.NO_GO


async def test_a_rehearsal_goes_on_where_a_dead_server_left_it_and_no_robot_outlives_it(
    db: Database, clock: Clock
) -> None:
    machines = await make_machines(db, 2)
    rehearsal = await begin(db)
    await carry_on_rehearsals(db, RULES)
    # All that a server knows stands in the database: another one has nothing else to go by.
    await answer(db, machines[0])
    other = Database(db.conninfo, now=clock)
    await play(other, rehearsal, machines)
    await other.close()
    assert {machine.status for machine in (await get_rehearsal(db, rehearsal.id)).machines} == {"passed"}
    # One that somebody breaks off.
    rehearsal = await begin(db)
    await carry_on_rehearsals(db, RULES)
    ended = await end_rehearsal(db, rehearsal.id, actor=ADMIN)
    assert (ended.status, ended.reason) == (RehearsalStatus.ENDED, "broken off by test")
    assert {machine.status for machine in ended.machines} == {"skipped"}
    assert await list_claims(db, only_open=True) == []
    for machine in machines:
        await answer(db, machine)
    # One whose server was killed for longer than it may take ends with what is known.
    late = await begin(db)
    await carry_on_rehearsals(db, RULES)
    clock.advance(RULES.deadline_s + 1)
    await carry_on_rehearsals(db, RULES)
    seen = await get_rehearsal(db, late.id)
    assert (seen.status, seen.verdict) == (RehearsalStatus.FINISHED, Verdict.NO_GO)
    assert await list_claims(db, only_open=True) == []
    # And a robot whose rehearsal nobody knows any more is sent away.
    for machine in machines:
        await answer(db, machine)
    lost = await begin(db)
    await carry_on_rehearsals(db, RULES)
    assert len(await list_claims(db, only_open=True)) == 2
    async with db.transaction() as session:
        await session.execute(text("DELETE FROM rehearsals WHERE id = :id"), {"id": lost.id})
    await carry_on_rehearsals(db, RULES)
    assert await list_claims(db, only_open=True) == []


async def test_what_speaks_against_a_class_is_said_with_its_remedy(db: Database) -> None:
    await make_machines(db, 1)
    pool = await get_pool(db, "lab")
    late = plan(Expected(5, 0, db.now()), up=1, coming=0, most=2, boots=FAST, obstacle="The pool is closed.")
    verdict, reasons = judge(pool, late, [], {"state": "replayed", "verdict": "failed", "reasons": ["2 doubles"]},
                             now=db.now())  # fmt: skip
    assert verdict is Verdict.NO_GO
    against = " ".join(reason.what for reason in reasons if reason.is_against)
    for words in ("closed", "may have 2 machines", "should have been by", "No machine has passed", "2 doubles"):
        assert words in against
    assert all(reason.remedy for reason in reasons)


async def test_what_robots_hold_is_not_refilled_and_nobody_else_may_call_himself_one(db: Database) -> None:
    await ensure_pool(db, "lab", PoolSpec(max=9, available_min=2), actor=ADMIN)
    await make_machines(db, 2)
    await begin(db)
    await carry_on_rehearsals(db, RULES)
    assert await refill_pools(db) == []
    with pytest.raises(InvalidInput):
        await request_claim(db, "lab", "Rehearsal-lab-m0@Robot.Invalid", owner_hash=b"a" * 32)


async def test_the_arrivals_have_a_pool_of_their_own_that_goes_with_all_that_was_simulated_in_it(db: Database) -> None:
    machines = await make_machines(db, 1)
    expected = Expected(2, 600, db.now() + timedelta(hours=12))
    rehearsal = await start_rehearsal(db, "lab", expected, RULES, with_arrivals=True, actor=ADMIN)
    assert await find_due_replay(db) is None
    for _ in range(8):
        await carry_on_rehearsals(db, RULES)
        await answer(db, machines[0])
    assert await find_due_replay(db) == rehearsal.id
    replay = await begin_replay(db, rehearsal.id, most_s=60)
    assert replay is not None
    assert (replay.people, replay.agents, replay.within_s) == (2, 2, 60)
    assert (await get_pool(db, replay.pool)).is_rehearsal
    await authenticate_api_token(db, replay.token, throttle=Throttle(9, 60), address=None)
    # Nothing real gets in there.
    with pytest.raises(Conflict, match="simulated"):
        await request_launch(db, replay.pool, 1, actor=ADMIN)
    for hostname, is_refused in (("gpu-01", True), ("swarm-0001", False)):
        (token,) = await create_enrolments(db, replay.pool, 1, actor=ADMIN)
        with pytest.raises(Conflict, match="simulated") if is_refused else contextlib.nullcontext():
            await announce_boot(db, token, hostname=hostname, boot_id="boot-1", agent_version="1")
    await request_claim(db, replay.pool, "swarm-1@swarm.example", owner_hash=b"s" * 32)
    # Its server is killed; the next one begins anew, and what the first one says then is nothing.
    again = await begin_replay(db, rehearsal.id, most_s=60)
    assert again is not None
    report = {"verdict": "ok", "agents": 2, "people": 2, "errors": 0, "seated": 2, "in_line": 0, "reasons": [],
              "join_to_seat_ms": {"p50": 80, "p95": "soon"}}  # fmt: skip
    await record_replay(db, replay, {**report, "verdict": "failed"})
    await record_replay(db, again, report)
    assert [pool.name for pool in await list_pools(db)] == ["lab"]
    assert [vm.hostname for vm in await list_vms(db)] == ["lab-m0"]
    with pytest.raises(Unauthenticated):
        await authenticate_api_token(db, again.token, throttle=Throttle(9, 60), address=None)
    await carry_on_rehearsals(db, RULES)
    seen = await get_rehearsal(db, rehearsal.id)
    assert seen.arrivals["state"] == "replayed"
    assert seen.arrivals["join_to_seat_ms"] == {"p50": 80.0, "p95": None, "p99": None}
    assert seen.verdict is Verdict.GO


async def test_arrivals_that_cannot_be_replayed_are_said_to_be_so(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = await make_machines(db, 1)
    expected = Expected(2, 600, db.now() + timedelta(hours=12))
    settings = load_settings([], environment={"LABLINK_HOME": str(tmp_path)})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for host, state, verdict, words in (
        ("127.0.0.1", "failed", Verdict.NO_GO, "could not be started: No such file"),
        ("192.0.2.1", "off", Verdict.GO, "listens on 192.0.2.1, not on loopback"),
    ):
        settings.server.host = host
        rehearsal = await start_rehearsal(db, "lab", expected, RULES, with_arrivals=True, actor=ADMIN)
        for _ in range(8):
            await carry_on_rehearsals(db, RULES)
            await answer(db, machines[0])
            await Rehearser(db, settings).replay()
        seen = await get_rehearsal(db, rehearsal.id)
        assert (seen.arrivals["state"], seen.verdict) == (state, verdict)
        assert any(words in reason.what for reason in seen.reasons)
    assert [pool.name for pool in await list_pools(db)] == ["lab"]


async def test_how_many_came_to_the_last_class_is_known(db: Database, clock: Clock) -> None:
    await make_machines(db, 3)
    now = db.now()
    async with db.transaction() as session:
        session.add(
            Schedule(pool_id=1, name="lab", zone="UTC", weekdays=[0], starts=time(9), stops=time(12), skips=[],
                     first_on=now.date(), count=3, catch_up_s=0, created_by="t", created_at=now, counts_from=now)
        )  # fmt: skip
        await session.flush()
        session.add(
            ScheduleRun(schedule_id=1, pool_id=1, status=RunStatus.RUNNING, started_at=now - timedelta(minutes=10),
                        starts_at=now, stops_at=now + timedelta(hours=3))
        )  # fmt: skip
    for minute, name in enumerate(("ada", "bob", "chen")):
        clock.advance(60 * minute)
        await request_claim(db, "lab", f"{name}@lab.org", owner_hash=name.encode().ljust(32))
    last = (await begin(db)).need.last_class
    assert last is not None
    assert last.people == 3
    assert 120 < last.within_s <= 190


async def test_a_check_command_is_one_line(db: Database) -> None:
    await make_machines(db, 1)
    spec = spec_of(await get_pool(db, "lab"))
    for wrong in ("a\nb", "x" * 2_001, "a\x1bb"):
        with pytest.raises(InvalidInput, match="check_command"):
            await update_pool(db, "lab", replace(spec, check_command=wrong), actor=ADMIN)
    pool = await update_pool(db, "lab", replace(spec, check_command=" nvidia-smi "), actor=ADMIN)
    assert pool.check_command == "nvidia-smi"
