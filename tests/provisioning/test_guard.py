from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backend.provisioning.guard import check_plan
from backend.provisioning.planned import PlannedChange

NAMES = [f"lab-{number}" for number in range(4)]
HARMLESS = ("create", "import", "move")
ACTIONS = (*HARMLESS, "update", "delete", "replace", "remove", "of the future")


def change(name: str | None, action: str) -> PlannedChange:
    return PlannedChange("x", "vm", name, action)


PLANS = st.lists(st.builds(change, st.sampled_from(NAMES), st.sampled_from(ACTIONS)), max_size=8)
SOME = st.frozensets(st.sampled_from(NAMES))


@given(changes=PLANS, destroying=SOME, living=SOME)
def test_a_plan_is_allowed_exactly_if_it_leaves_every_living_machine_alone_that_is_not_being_destroyed(
    changes: list[PlannedChange], destroying: frozenset[str], living: frozenset[str]
) -> None:
    verdict = check_plan(changes, destroying=destroying, living=living)
    touched = {each.key for each in changes if each.action not in HARMLESS} & (living - destroying)
    assert verdict.is_allowed == (not touched)
    assert all(any(name in refusal for refusal in verdict.refusals) for name in touched)
    assert not set(verdict.replaced) & (living | destroying)


def test_a_refusal_says_what_would_happen_to_whom() -> None:
    changes = [
        change("lab-1", "replace"),
        change("lab-2", "update"),
        change("lab-3", "delete"),
        change("lab-4", "remove"),
    ]
    verdict = check_plan(changes, destroying=(), living=[f"lab-{number}" for number in range(9)])
    assert verdict.refusals == (
        "it would change lab-2, which is a living machine",
        "it would delete lab-3, which is a living machine",
        "it would forget lab-4, which is a living machine",
        "it would replace lab-1, which is a living machine",
    )


def test_what_is_no_machine_of_a_pool_is_no_concern_of_the_guard() -> None:
    assert check_plan([change(None, "delete"), change("x", "delete")], destroying=(), living=NAMES).is_allowed
    assert check_plan([], destroying=(), living=NAMES).is_allowed
