from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from backend.provisioning.guard import check_plan

NAMES = [f"lab-{number}" for number in range(4)]
HARMLESS = (["no-op"], ["read"], ["create"])
ACTIONS = [*HARMLESS, ["update"], ["delete"], ["delete", "create"], ["create", "delete"], ["forget"], ["of the future"]]


def change(name: Any, actions: list[str], **more: Any) -> dict[str, Any]:
    """One change of a plan, as `terraform show -json` writes it."""
    return {"address": "x", "mode": "managed", "name": "vm", "index": name, "change": {"actions": actions}, **more}


PLANS = st.lists(st.builds(change, st.sampled_from(NAMES), st.sampled_from(ACTIONS)), max_size=8)
SOME = st.frozensets(st.sampled_from(NAMES))


@given(changes=PLANS, destroying=SOME, living=SOME)
def test_a_plan_is_allowed_exactly_if_it_leaves_every_living_machine_alone_that_is_not_being_destroyed(
    changes: list[dict[str, Any]], destroying: frozenset[str], living: frozenset[str]
) -> None:
    verdict = check_plan({"resource_changes": changes}, destroying=destroying, living=living)
    touched = {each["index"] for each in changes if each["change"]["actions"] not in HARMLESS} & (living - destroying)
    assert verdict.is_allowed == (not touched)
    assert all(any(name in refusal for refusal in verdict.refusals) for name in touched)
    assert not set(verdict.replaced) & (living | destroying)


def test_a_refusal_says_what_would_happen_to_whom() -> None:
    changes = [
        change("lab-1", ["delete", "create"]),
        change("lab-2", ["update"]),
        change("lab-3", ["delete"]),
        change("lab-4", ["forget"]),
    ]
    verdict = check_plan({"resource_changes": changes}, destroying=(), living=[f"lab-{number}" for number in range(9)])
    assert verdict.refusals == (
        "it would change lab-2, which is a living machine",
        "it would delete lab-3, which is a living machine",
        "it would forget lab-4, which is a living machine",
        "it would replace lab-1, which is a living machine",
    )


def test_what_is_no_machine_of_a_pool_is_no_concern_of_the_guard() -> None:
    changes = [
        change(0, ["delete"]),
        change("lab-1", ["delete"], mode="data"),
        {**change("x", ["delete"]), "index": None},
    ]
    assert check_plan({"resource_changes": changes}, destroying=(), living=NAMES).is_allowed
    assert check_plan({}, destroying=(), living=NAMES).is_allowed
