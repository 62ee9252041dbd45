"""A scenario is read strictly, and its plan follows from it and the seed alone."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lablink_ui.swarm.scenario import (
    MAX_AGENTS,
    Arrivals,
    Scenario,
    Span,
    WrongScenario,
    describe_keys,
    parse_scenario,
    plan,
    read_text,
)

KEYS = [each.name for each in fields(Scenario)]
EXAMPLE = Path(__file__).parents[2] / "docs" / "swarm.yaml"
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=10), ANYTHING, max_size=4))
@settings(max_examples=60, deadline=None)
def test_whatever_stands_in_a_file_is_a_scenario_or_one_line_that_says_what_is_wrong(values: dict[str, object]) -> None:
    try:
        read = parse_scenario(yaml.safe_dump(values))
    except WrongScenario as exc:
        said = str(exc)
        assert len(said.splitlines()) == 1
        assert any(key in said for key in KEYS) or "YAML" in said
    else:
        assert set(values) <= set(KEYS)
        assert plan(read, 1) == plan(read, 1)


@given(
    agents=st.integers(0, MAX_AGENTS),
    people=st.integers(0, 300),
    minutes=st.integers(0, 60),
    share=st.integers(0, 100),
    low=st.integers(0, 50),
    more=st.integers(0, 50),
)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_what_is_meant(
    agents: int, people: int, minutes: int, share: int, low: int, more: int
) -> None:
    text = f"""
        agents: {agents}
        arrivals: {people} in {minutes} min
        reloads: {share} %
        away: {low} to {low + more} s
        wifi_off: {low} ms to {low + more} s
    """
    read = parse_scenario(text)
    assert read == replace(
        Scenario(),
        agents=agents,
        arrivals=Arrivals(people, 60 * minutes),
        reloads=share / 100,
        away=Span(low, low + more),
        wifi_off=Span(low / 1_000, low + more),
    )
    coming = plan(read, seed=agents)
    assert len({person.email for person in coming}) == people
    assert [person.arrives_s for person in coming] == sorted(person.arrives_s for person in coming)
    assert all(0 <= person.arrives_s <= 60 * minutes for person in coming)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("agent: 5", "'agent' is no key; the keys are pool, agents"),
        ("agents: -1", "agents: '-1' is not allowed; a whole number from 0 to 20,000 is"),
        ("agents: true", "agents: 'True' is not allowed"),
        ("arrivals: 450", "arrivals: '450' is not allowed; PEOPLE in DURATION, such as 450 in 8 min"),
        ("stay: 30", "stay: '30' is not allowed; a duration such as"),
        ("stay: 25 h", "stay: '25 h' is not allowed; a duration such as 500 ms, 30 s, 8 min or 1 h, at most 24 h"),
        ("away: 9 to 2 s", "away: '9 to 2 s' is not allowed; two durations"),
        ("reloads: 101 %", "reloads: '101 %' is not allowed; a share from 0 % to 100 %"),
        ("pool: Not A Pool", "pool: 'Not A Pool' is not allowed; a pool's name"),
        ("stay: 1 s\nstay: 2 s", "'stay' stands there twice"),
        ("[1, 2]", "a scenario is a list of 'key: value'"),
        ("a: b: c", "this is no YAML (line 1)"),
    ],
)
def test_what_is_wrong_is_named_with_what_is_allowed(line: str, said: str) -> None:
    with pytest.raises(WrongScenario) as caught:
        parse_scenario(line)
    assert str(caught.value).startswith(said)


def test_the_example_is_a_lecture_hall_and_says_every_key() -> None:
    text = read_text(EXAMPLE)
    example = parse_scenario(text)
    assert (example.arrivals, example.agents) == (Arrivals(450, 480), 500)
    assert list(yaml.safe_load(text)) == KEYS
    assert all(f"\n  {key} " in f"\n{describe_keys()}" for key in KEYS)


def test_another_share_changes_nobody_elses_day() -> None:
    calm = parse_scenario("arrivals: 200 in 1 min\nreloads: 0 %")
    restless = replace(calm, reloads=1.0)
    for before, after in zip(plan(calm, 3), plan(restless, 3), strict=True):
        others = tuple(mishap for mishap in after.mishaps if mishap.kind != "reload")
        assert replace(after, mishaps=others) == before
    assert plan(calm, 3) != plan(calm, 4)


def test_people_are_spread_over_the_pools() -> None:
    coming = plan(parse_scenario("pool: [one, two]\narrivals: 10 in 1 s"), 1)
    assert sorted(person.pool for person in coming) == ["one"] * 5 + ["two"] * 5
