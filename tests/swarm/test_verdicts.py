"""What a swarm was told, counted and judged."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from lablink_ui.swarm.course import Course
from lablink_ui.swarm.report import make_report
from lablink_ui.swarm.tally import Tally
from lablink_ui.swarm.target import Target

HERE = Target("http", "127.0.0.1", 8080, ("127.0.0.1",))


def told(*lines: list) -> Tally:
    tally = Tally()
    for line in lines:
        tally.take(json.dumps(line).encode())
    return tally


def in_use(**owners: str | None) -> list[dict[str, str | None]]:
    return [
        {"hostname": hostname, "status": "in-use" if email else "available", "email": email}
        for hostname, email in owners.items()
    ]


def judge(tally: Tally, *, people: int, in_line: int = 0) -> dict:
    course = Course(HERE, f"arrivals: {people} in 1 s", 1, "token", None, False, print, tally=tally)
    course.in_line = in_line
    return make_report(course, began_at=datetime.now(UTC))


def test_a_machine_that_two_people_were_shown_at_once_is_a_double() -> None:
    tally = told([1.0, "sat", "ada", "m1"], [2.0, "sat", "bob", "m1"])
    assert tally.find_doubles(in_use(m1="bob")) == ["m1 was shown to ada and to bob at once"]


def test_a_machine_that_was_given_back_before_the_next_one_sat_is_none_whatever_was_told_first() -> None:
    lines = [[1.0, "sat", "ada", "m1"], [3.0, "sat", "bob", "m1"], [2.0, "left", "ada", "m1"]]
    assert told(*lines).find_doubles(in_use(m1="bob")) == []


def test_what_a_page_shows_must_be_what_the_server_says() -> None:
    tally = told([1.0, "sat", "ada", "m1"], [9.0, "sees", "ada", "active", "m1"])
    assert tally.find_doubles(in_use(m1="ada")) == []
    assert tally.find_doubles(in_use(m1=None, m2="ada")) == ["ada is shown m1, which the server says is None's"]


def test_one_person_with_two_machines_is_a_double() -> None:
    assert Tally().find_doubles(in_use(m1="ada", m2="ada", m3=None)) == ["ada holds 2 machines"]


def test_all_is_well_when_everybody_sits_or_stands_in_line() -> None:
    report = judge(told([1.0, "sat", "ada", "m1"]), people=2, in_line=1)
    assert (report["verdict"], report["reasons"]) == ("ok", [])
    assert (report["seated"], report["in_line"]) == (1, 1)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "1 of 1 people have neither a seat nor a place in line"),
        ([[1.0, "failed", "person: claim 500", "boom"]], "1 times person: claim 500, such as: boom"),
        ([[1.0, "failed", "person: claim 429", "later"]], "1 times person: claim 429, such as: later"),
    ],
)
def test_an_error_a_429_or_somebody_forgotten_is_a_failure(lines: list, reason: str) -> None:
    report = judge(told(*lines), people=1)
    assert report["verdict"] == "failed"
    assert reason in report["reasons"]
    assert report["refused_429"] == sum("429" in line[2] for line in lines)
    assert report["errors"] == len(lines)


def test_times_are_percentiles_of_what_was_told_and_nothing_where_nothing_was() -> None:
    tally = told(*([number, "took", "join to seat", float(number)] for number in range(1, 101)))
    report = judge(tally, people=0)
    assert report["join_to_seat_ms"] == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert report["heartbeat_ms"] == {"p50": None, "p95": None, "p99": None}
