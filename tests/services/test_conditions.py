from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.db.engine import Database
from backend.errors import InvalidInput
from backend.services.conditions import BEGIN_S, Held, health_of, judge, list_open
from backend.services.events import list_events
from backend.services.health_limits import OWN, HealthLimits
from backend.services.health_rules import REMEDIES, RULES, TITLES, Facts
from backend.services.heartbeats import record_heartbeats
from backend.services.own_figures import show_figures
from backend.services.pools import get_pool, spec_of, update_pool
from backend.services.vms import get_vm, record_silence
from backend.states import ConditionKind, Health, Severity
from tests.services.worlds import ADMIN, make_machines, status_of

LIMITS = HealthLimits(agent_version="2.0")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
BEAT_S = 20
LOST = {"index": 1, "error": "GPU is lost"}
COOL = {"index": 0, "temperature_c": 40.0}
# One way in which each can be wrong.
WRONG = {
    ConditionKind.GPU_LOST: Facts(gpus=(COOL, LOST)),
    ConditionKind.GPU_MISSING: Facts(gpus=(COOL,), gpus_expected=2),
    ConditionKind.GPU_ERRORS: Facts(gpus=({**COOL, "xids": [79]},)),
    ConditionKind.GPU_HOT: Facts(gpus=({**COOL, "temperature_c": 93.0},)),
    ConditionKind.GPU_THROTTLED: Facts(gpus=({**COOL, "throttle": ["heat"]},)),
    ConditionKind.DISK: Facts(disk_free_pct=1.0, disk_free_gb=0.5),
    ConditionKind.MEMORY: Facts(memory_pct=98.4),
    ConditionKind.CONTAINER: Facts(container={"name": "desk", "state": "exited"}),
    ConditionKind.CLOCK: Facts(skew_s=-600.0),
    ConditionKind.AGENT_OLD: Facts(agent_version="1.0"),
    ConditionKind.REPORTED: Facts(health=Health.UNHEALTHY, reasons=("the startup script failed",)),
}


def watch(many: Sequence[Facts], *, every_s: float = BEAT_S, limits: HealthLimits = LIMITS) -> list[tuple[Held, ...]]:
    """What is held after each of these heartbeats."""
    held: tuple[Held, ...] = ()
    after = []
    for number, facts in enumerate(many):
        held = judge(facts, limits, held, NOON + timedelta(seconds=number * every_s))
        after.append(held)
    return after


def changes_of(after: Sequence[tuple[Held, ...]], kind: ConditionKind) -> int:
    """How often a condition began or ended."""
    states = [False] + [any(each.kind is kind for each in list_open(held)) for held in after]
    return sum(before != now for before, now in itertools.pairwise(states))


def test_every_kind_has_a_rule_a_title_and_a_remedy() -> None:
    assert set(WRONG) == set(RULES) == set(ConditionKind) - {ConditionKind.SILENT}
    assert set(TITLES) == set(REMEDIES) == set(ConditionKind)
    assert all(text.endswith(".") for text in REMEDIES.values())


@pytest.mark.parametrize("kind", WRONG)
def test_each_begins_is_told_in_a_sentence_and_is_over_when_it_stayed_away(kind: ConditionKind) -> None:
    times = int(BEGIN_S.get(kind, 0) // BEAT_S) + 1
    after = watch([WRONG[kind]] * times + [Facts(agent_version="2.0")] * 4)
    assert [len(list_open(held)) for held in after[:times]] == [0] * (times - 1) + [1]
    (condition,) = list_open(after[times - 1])
    assert (condition.kind, condition.since_at) == (kind, NOON)
    assert len(condition.sentence.split()) >= 4
    assert list_open(after[-1]) == ()
    assert changes_of(after, kind) == 2


@pytest.mark.parametrize(
    ("facts", "severity"),
    [
        (Facts(disk_free_pct=9, disk_free_gb=4.5), "warning"),
        (Facts(disk_free_pct=9, disk_free_gb=90), None),
        (Facts(disk_free_pct=1, disk_free_gb=0.5), "critical"),
        (Facts(disk_free_pct=1, disk_free_gb=1.5), "warning"),
        # An older agent does not tell the size.
        (Facts(disk_free_pct=1), "warning"),
        (Facts(gpus=({**COOL, "xids": [13, 31, 43]},)), None),
        (Facts(gpus=({**COOL, "xids": [63]},)), "warning"),
        (Facts(gpus=({**COOL, "xids": [63, 48]},)), "critical"),
        (Facts(gpus=({**COOL, "ecc_uncorrected": 1},)), "critical"),
        (Facts(container={"name": "desk", "state": "restarting"}), "warning"),
        (Facts(container={"name": "desk", "state": "running"}), None),
        # Its driver may still be loading.
        (Facts(gpus_expected=1, is_ready=False), None),
        (Facts(skew_s=29), None),
        (Facts(health=Health.DEGRADED), "warning"),
    ],
)
def test_how_bad_it_is(facts: Facts, severity: str | None) -> None:
    open_now = list_open(watch([facts])[-1])
    assert [str(each.severity) for each in open_now] == ([severity] if severity else [])


FIGURES = {
    # What wavers, and between which figures nothing may begin or end.
    ConditionKind.GPU_HOT: (lambda x: Facts(gpus=({**COOL, "temperature_c": x},)), 85.0, 89.99),
    ConditionKind.MEMORY: (lambda x: Facts(memory_pct=x), 92.0, 96.99),
    ConditionKind.DISK: (lambda x: Facts(disk_free_pct=x, disk_free_gb=1.1), 10.01, 12.49),
    ConditionKind.CLOCK: (lambda x: Facts(skew_s=x), 24.0, 29.99),
}


@pytest.mark.parametrize("kind", FIGURES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_a_figure_that_wavers_below_its_bar_begins_nothing_and_ends_nothing(kind: ConditionKind, data) -> None:
    facts_of, low, high = FIGURES[kind]
    wavering = [facts_of(x) for x in data.draw(st.lists(st.floats(low, high), min_size=1, max_size=30))]
    assert changes_of(watch(wavering), kind) == 0
    # Once it is open, the same wavering does not end it.
    assert changes_of(watch([WRONG[kind]] * 4 + wavering), kind) == 1


@given(st.lists(st.sampled_from([*WRONG, None]), max_size=80))
@settings(max_examples=60, deadline=None)
def test_whatever_comes_and_goes_nothing_begins_twice_before_it_was_away_for_the_time_to_settle(kinds) -> None:
    after = watch([WRONG[kind] if kind else Facts() for kind in kinds])
    for kind in set(WRONG) - {ConditionKind.REPORTED, ConditionKind.AGENT_OLD}:
        # Each end takes 60 s of absence, three more heartbeats than the one that missed it.
        assert changes_of(after, kind) <= 1 + 2 * (len(kinds) // 4)
    for held in after:
        assert len({each.kind for each in held}) == len(held)
        assert all(each.sentence for each in held)
        assert [Held.of(each.as_json()) for each in held] == list(held)
        ranks = [each.severity.rank for each in list_open(held)]
        assert ranks == sorted(ranks, reverse=True)
        assert (health_of(list_open(held)) is Health.UNHEALTHY) == (Severity.CRITICAL.rank in ranks)


def test_what_starts_again_and_again_becomes_worse_and_does_not_flap() -> None:
    restarting = Facts(container={"name": "desk", "state": "restarting"})
    running = Facts(container={"name": "desk", "state": "running"})
    after = watch([restarting, running] * 8)
    assert changes_of(after, ConditionKind.CONTAINER) == 1
    severities = [str(list_open(held)[0].severity) for held in after]
    assert severities == sorted(severities, reverse=True)
    assert (severities[0], severities[-1]) == ("warning", "critical")


def test_a_new_boot_wipes_the_slate_of_what_is_not_found_again() -> None:
    (held,) = watch([WRONG[ConditionKind.GPU_ERRORS]])
    later = NOON + timedelta(seconds=BEAT_S)
    assert judge(Facts(), LIMITS, held, later, is_new_boot=True) == ()
    assert len(judge(WRONG[ConditionKind.GPU_ERRORS], LIMITS, held, later, is_new_boot=True)) == 1


def test_own_figures_are_read_as_they_are_written_and_wrong_ones_are_named() -> None:
    own = OWN.read(" hot_c=85, memory_pct=95.5\n")
    assert (own, show_figures(own)) == ({"hot_c": 85, "memory_pct": 95.5}, "hot_c=85 memory_pct=95.5")
    assert LIMITS.over(own) == replace(LIMITS, hot_c=85, memory_pct=95.5)
    for wrong in ("hot=85", "hot_c=very", "hot_c", "hot_c=1000", "hot_c=nan", "agent_version=1"):
        with pytest.raises(InvalidInput, match=r"health"):
            OWN.read(wrong)


async def test_a_condition_is_shown_told_in_the_history_and_over_again(db: Database, clock) -> None:
    (machine,) = await make_machines(db, 1)

    async def beat(temperature_c: float) -> None:
        clock.advance(BEAT_S)
        gpu = {"index": 0, "temperature_c": temperature_c}
        await record_heartbeats(db, [replace(machine, at=db.now(), gpus=(gpu,))])

    for temperature_c in (93.0, 95.0, 87.0):
        await beat(temperature_c)
    vm = await get_vm(db, "lab-m0")
    (condition,) = vm.conditions
    assert (condition.kind, condition.severity) == (ConditionKind.GPU_HOT, Severity.WARNING)
    assert condition.sentence == "GPU 0 is at 93 °C; 90 °C is too hot"
    assert (vm.health, vm.reasons) == (Health.DEGRADED, (condition.sentence,))
    for _ in range(4):
        await beat(60.0)
    assert ((await get_vm(db, "lab-m0")).conditions, (await get_vm(db, "lab-m0")).health) == ((), Health.HEALTHY)
    told = [(event.kind, event.message) for event in await list_events(db, vm_id=machine.vm_id)]
    assert [each for each in told if "condition" in each[0]] == [
        ("vm.condition_over", "lab-m0: over: GPU hot"),
        ("vm.condition", "lab-m0: GPU 0 is at 93 °C; 90 °C is too hot"),
    ]


async def test_a_pool_may_allow_what_the_server_does_not(db: Database) -> None:
    (machine,) = await make_machines(db, 1)
    hot = replace(machine, gpus=({"index": 0, "temperature_c": 93.0},))
    spec = replace(spec_of(await get_pool(db, "lab")), health={"hot_c": 100.0})
    assert (await update_pool(db, "lab", spec, actor=ADMIN)).health == {"hot_c": 100.0}
    await record_heartbeats(db, [replace(hot, at=db.now())])
    assert (await get_vm(db, "lab-m0")).conditions == ()
    with pytest.raises(InvalidInput):
        await update_pool(db, "lab", replace(spec, health={"hot_c": 1.0}), actor=ADMIN)


async def test_a_machine_whose_gpu_is_gone_after_a_boot_is_off_the_offer_and_comes_back_with_it(
    db: Database, clock
) -> None:
    (machine,) = await make_machines(db, 1)
    whole = replace(machine, at=db.now(), gpus=(COOL,))
    await record_heartbeats(db, [whole])
    clock.advance(BEAT_S)
    await record_heartbeats(db, [replace(machine, at=db.now(), boot_id="boot-2")])
    vm = await get_vm(db, "lab-m0")
    assert (str(vm.status), vm.reason) == ("failed", "its GPU is not there")
    clock.advance(BEAT_S)
    await record_heartbeats(db, [replace(whole, at=db.now(), boot_id="boot-3")])
    assert await status_of(db, "lab-m0") == "available"


async def test_a_gpu_that_is_lost_in_use_says_so_and_silence_is_a_condition_too(db: Database, clock) -> None:
    from backend.services.claims import request_claim

    (machine,) = await make_machines(db, 1)
    await request_claim(db, "lab", "ada@lab.org", owner_hash=None)
    await record_heartbeats(db, [replace(machine, at=db.now(), gpus=(LOST,))])
    vm = await get_vm(db, "lab-m0")
    assert vm.conditions[0].sentence == "GPU 1 does not answer (GPU is lost), while the machine is in use"
    assert (str(vm.status), vm.health) == ("in-use", Health.UNHEALTHY)
    clock.advance(60)
    await record_silence(db, after_s=50)
    assert [each.kind for each in (await get_vm(db, "lab-m0")).conditions] == [
        ConditionKind.SILENT,
        ConditionKind.GPU_LOST,
    ]
