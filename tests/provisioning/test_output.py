from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.provisioning.output import MAX_MESSAGE, parse_line
from backend.states import ProgressState

VM = {
    "addr": 'terraform_data.vm["lab-001"]',
    "module": "",
    "resource": 'terraform_data.vm["lab-001"]',
    "implied_provider": "terraform",
    "resource_type": "terraform_data",
    "resource_name": "vm",
    "resource_key": "lab-001",
}


def said(kind: str, message: str, *, level: str = "info", **more: object) -> str:
    """A line as Terraform 1.11 writes it."""
    stamp = "2026-11-24T22:37:46.688373Z"
    line = {"@level": level, "@message": message, "@module": "terraform.ui", "@timestamp": stamp, "type": kind}
    return json.dumps(line | more)


@pytest.mark.parametrize(
    ("kind", "hook", "state", "elapsed_s"),
    [
        ("apply_start", {"action": "create"}, ProgressState.RUNNING, 0),
        ("apply_progress", {"action": "create", "elapsed_seconds": 10}, ProgressState.RUNNING, 10),
        ("apply_complete", {"action": "create", "id_key": "id", "elapsed_seconds": 12}, ProgressState.DONE, 12),
        ("apply_errored", {"action": "create", "elapsed_seconds": 3}, ProgressState.FAILED, 3),
    ],
)
def test_progress_with_a_machine_is_told_with_its_name(kind: str, hook: dict, state, elapsed_s: int) -> None:
    line = parse_line(said(kind, 'terraform_data.vm["lab-001"]: …', hook={"resource": VM, **hook}))
    assert line is not None
    assert (line.hostname, line.state, line.action, line.elapsed_s) == ("lab-001", state, "create", elapsed_s)
    assert line.at == datetime(2026, 11, 24, 22, 37, 46, 688373, tzinfo=UTC)


def test_progress_with_anything_else_is_a_message_and_no_more() -> None:
    hook = {"resource": {**VM, "resource_name": "disk"}, "action": "create"}
    line = parse_line(said("apply_complete", "the disk is there", hook=hook))
    assert line is not None
    assert (line.message, line.hostname, line.state, line.action) == ("the disk is there", None, None, None)


def test_an_error_names_its_machine_and_carries_its_detail_in_one_line() -> None:
    diagnostic = {
        "severity": "error",
        "summary": "local-exec provisioner error",
        "detail": "Error running command 'start': exit status 7.\nOutput: no room",
        "address": 'terraform_data.vm["lab-001"]',
    }
    line = parse_line(said("diagnostic", "Error: local-exec provisioner error", level="error", diagnostic=diagnostic))
    assert line is not None
    assert (line.is_error, line.hostname, line.state) == (True, "lab-001", None)
    assert line.message == (
        "Error: local-exec provisioner error: Error running command 'start': exit status 7. Output: no room"
    )


@pytest.mark.parametrize("raw", ["", "  ", said("version", "Terraform 1.11.4"), said("outputs", "Outputs: 0")])
def test_what_says_nothing_is_left_out(raw: str) -> None:
    assert parse_line(raw) is None


@pytest.mark.parametrize("raw", ["Error: no JSON at all", "42", '["a list"]', '{"half":', "[" * 100_000])
def test_what_is_not_of_the_format_is_kept_as_it_is(raw: str) -> None:
    line = parse_line(raw)
    assert line is not None
    assert line.message == raw[:MAX_MESSAGE]
    assert line.hostname is None


def test_secrets_are_struck_out_wherever_they_stand() -> None:
    detail = "LABLINK_ENROLMENT_TOKEN=the-token"
    for raw in (said("log", "the-token"), said("diagnostic", "x", diagnostic={"detail": detail}), "plain the-token"):
        line = parse_line(raw, redact=["the-token"])
        assert line is not None
        assert "the-token" not in repr(line)
        assert "[secret]" in line.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
LINES = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["apply_start", "apply_complete", "diagnostic", "log"]) | JSON,
        "@message": JSON,
        "@level": st.sampled_from(["info", "error"]) | JSON,
        "@timestamp": st.datetimes().map(str) | JSON,
        "hook": st.fixed_dictionaries(
            {},
            optional={
                "resource": st.fixed_dictionaries({"resource_name": st.just("vm")}, optional={"resource_key": JSON})
                | JSON,
                "action": JSON,
                "elapsed_seconds": JSON,
            },
        )
        | JSON,
        "diagnostic": st.dictionaries(st.sampled_from(["detail", "address", "summary"]), JSON) | JSON,
    },
)


@given(raw=LINES.map(json.dumps) | st.text())
def test_whatever_is_said_becomes_a_line_that_can_be_stored(raw: str) -> None:
    line = parse_line(raw)
    if line is not None:
        for text in (line.message, line.level):
            assert "\x00" not in text
            assert text.encode().decode() == text
            assert len(text) <= MAX_MESSAGE
        assert line.at.tzinfo is not None
        assert 0 <= line.elapsed_s <= 1e9
