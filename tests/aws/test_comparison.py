"""Every way in which database, state and cloud can disagree about a machine, and every way that is none."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.provisioning.comparison import compare, find_homeless
from backend.provisioning.machines import HeldState, HeldVm, Machine, StateUnreadable, parse_state
from backend.services.findings import KnownVm, PoolFacts
from backend.services.pools import PoolSpec
from backend.services.views import PoolView
from backend.states import PoolStatus, VmStatus

TAGS = {"Name": "gpu-001", "Pool": "gpu", "Cost": "grant"}
POOL = PoolView(
    id=3,
    name="gpu",
    status=PoolStatus.OPEN,
    created_at=datetime.now(UTC),
    **{
        name: getattr(PoolSpec(), name)
        for name in PoolView.__slots__
        if name not in {"id", "name", "status", "created_at", "is_rehearsal"}
    },
)
MACHINE = Machine(
    id="i-1",
    hostname="gpu-001",
    pool="gpu",
    is_ours=True,
    is_off=False,
    kind="t3.large",
    image="ami-1",
    started_at="2026-01-01",
    tags=TAGS,
)
HELD = HeldVm("i-1", "t3.large", TAGS)


def known(status: VmStatus = VmStatus.AVAILABLE, *names: str) -> PoolFacts:
    return PoolFacts(POOL, tuple(KnownVm(name, status) for name in names or ("gpu-001",)), 1, is_busy=False)


def held(**vms: HeldVm) -> HeldState:
    return HeldState({name.replace("_", "-"): vm for name, vm in vms.items()})


def kinds(facts: PoolFacts, state: HeldState | None, *machines: Machine) -> list[tuple[str, str]]:
    return [(str(each.kind), each.subject) for each in compare(facts, state, machines)]


def test_three_that_agree_find_nothing() -> None:
    assert kinds(known(), held(gpu_001=HELD), MACHINE) == []
    assert kinds(PoolFacts(POOL, (), 0, is_busy=False), None) == []


@pytest.mark.parametrize("status", [VmStatus.PROVISIONING, VmStatus.DESTROYING, VmStatus.FAILED])
def test_a_vm_that_is_being_made_or_taken_away_or_failed_may_be_without_a_machine(status: VmStatus) -> None:
    assert kinds(known(status), held()) == []
    assert kinds(known(status), held(gpu_001=HELD), MACHINE) == []


def test_each_disagreement_has_its_kind() -> None:
    state = held(gpu_001=HELD)
    assert kinds(known(), state) == [("gone", "gpu-001")]
    assert kinds(known(), held(), MACHINE) == [("unmanaged", "gpu-001")]
    assert kinds(known(), held(gpu_001=replace(HELD, id="i-0")), MACHINE) == [("unmanaged", "gpu-001")]
    assert kinds(known(), None, MACHINE) == [("state-lost", "gpu")]
    assert kinds(known(), state, replace(MACHINE, is_off=True)) == [("stopped", "gpu-001")]
    assert kinds(known(), state, replace(MACHINE, kind="t3.xlarge")) == [("changed", "gpu-001")]
    assert kinds(known(), state, replace(MACHINE, tags={**TAGS, "Cost": "other"})) == [("changed", "gpu-001")]
    assert kinds(known(), state, replace(MACHINE, tags={**TAGS, "aws:autoscaling": "x"})) == []
    nobody = PoolFacts(POOL, (), 0, is_busy=False)
    assert kinds(nobody, held(), MACHINE) == [("stranger", "i-1")]
    assert kinds(nobody, held(gpu_001=HELD)) == [("ghost", "gpu-001")]
    assert kinds(nobody, None, MACHINE) == [("stranger", "i-1"), ("state-lost", "gpu")]


def test_of_two_with_one_name_the_one_that_the_state_holds_is_the_vm() -> None:
    older = replace(MACHINE, id="i-0", started_at="2025-01-01")
    assert kinds(known(), held(gpu_001=HELD), older, MACHINE) == [("twin", "i-0")]
    assert kinds(known(VmStatus.FAILED), held(gpu_001=HELD), older, MACHINE) == [("twin", "i-0")]


def test_a_machine_of_another_server_is_nobodys_business_and_one_whose_tags_were_taken_is_left_alone() -> None:
    theirs = replace(MACHINE, is_ours=False)
    nobody = PoolFacts(POOL, (), 0, is_busy=False)
    assert kinds(nobody, held(), theirs) == []
    assert kinds(known(), held(gpu_001=HELD), theirs) == [("disowned", "gpu-001")]
    renamed = replace(MACHINE, hostname="mine")
    assert kinds(known(), held(gpu_001=HELD), renamed) == [("disowned", "gpu-001")]
    elsewhere = replace(MACHINE, pool="other")
    assert find_homeless(["gpu"], [theirs, MACHINE]) == []
    assert [each.subject for each in find_homeless(["gpu"], [elsewhere])] == ["i-1"]


def test_a_state_is_read_as_terraform_writes_it() -> None:
    attributes = {"id": "i-1", "instance_type": "t3.large", "tags": TAGS}
    vm = {"mode": "managed", "type": "aws_instance", "name": "vm", "instances": [
        {"index_key": "gpu-001", "attributes": attributes}]}  # fmt: skip
    group = {"mode": "managed", "type": "aws_security_group", "name": "pool", "instances": [
        {"index_key": 0, "attributes": {}}]}  # fmt: skip
    data: dict[str, Any] = {"mode": "data", "type": "aws_vpc", "name": "pool", "instances": [{"attributes": {}}]}
    state = parse_state(json.dumps({"version": 4, "resources": [vm, group, data]}).encode())
    assert state is not None
    assert state.vms == {"gpu-001": HELD}
    assert state.addresses == {'aws_instance.vm["gpu-001"]', "aws_security_group.pool[0]"}
    assert parse_state(None) is None
    for broken in (b"", b"{", b"[]", b"null", b'{"version": 3}', b'{"version": 4, "resources": 7}', b"\xff\xfe"):
        with pytest.raises(StateUnreadable):
            parse_state(broken)
