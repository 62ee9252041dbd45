from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.provisioning.planned import PlanHearer, PlannedChange, PlanUnclear

COUNTED = {"create": {"add"}, "update": {"change"}, "delete": {"remove"}, "replace": {"add", "remove"}}
ACTIONS = (*COUNTED, "remove", "move", "import", "read", "noop")


def planned(key: str | None, action: str) -> str:
    """One line of `terraform plan -json`."""
    address = f'terraform_data.vm["{key}"]' if key else "terraform_data.vm"
    resource = {"addr": address, "resource_name": "vm", "resource_key": key}
    return json.dumps({"type": "planned_change", "change": {"resource": resource, "action": action}})


def summary(actions: list[str]) -> str:
    counts = {name: sum(name in COUNTED.get(each, ()) for each in actions) for name in ("add", "change", "remove")}
    return json.dumps({"type": "change_summary", "changes": {**counts, "import": 0, "operation": "plan"}})


def hear(lines: list[str]) -> list[PlannedChange]:
    hearer = PlanHearer()
    for line in lines:
        hearer.hear(line)
    return hearer.list_changes()


@given(st.lists(st.sampled_from(ACTIONS)), st.lists(st.sampled_from(["", "no JSON", "[]", '{"type": "version"}'])))
def test_all_that_a_plan_does_is_heard_whatever_else_is_said(actions: list[str], noise: list[str]) -> None:
    heard = hear([*noise, *(planned(f"lab-{number}", each) for number, each in enumerate(actions)), summary(actions)])
    told = [(f"lab-{number}", each) for number, each in enumerate(actions) if each not in {"read", "noop"}]
    assert [(each.key, each.action) for each in heard] == told


@given(st.lists(st.sampled_from(sorted(COUNTED)), min_size=1), st.data())
def test_a_plan_of_which_a_line_was_lost_is_not_believed(actions: list[str], data: Any) -> None:
    lines = [*(planned("lab-1", each) for each in actions), summary(actions)]
    del lines[data.draw(st.integers(0, len(lines) - 1))]
    with pytest.raises(PlanUnclear):
        hear(lines)


def test_a_resource_without_a_key_has_none() -> None:
    assert hear([planned(None, "create"), summary(["create"])]) == [
        PlannedChange("terraform_data.vm", "vm", None, "create")
    ]
