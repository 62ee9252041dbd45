from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.client import LAST_RETRY_S, LONGEST_WISH_S, REFUSED_RETRY_S, Backoff, Client, Refused, ServerAway
from agent.config import parse
from tests.agent.tiny_server import Fault, TinyServer
from tests.harness.server import free_port

FAILURES = st.one_of(
    st.builds(ServerAway, st.just("away"), st.none() | st.floats(0, 1e12)),
    st.builds(Refused, st.integers(300, 499), st.just("no")),
)


@given(failures=st.lists(FAILURES, min_size=1, max_size=40))
def test_a_pause_is_bounded_jittered_and_never_shorter_than_the_servers_wish(failures) -> None:
    backoff = Backoff()
    for failure in failures:
        pause_s = backoff.pause_s(failure)
        wish_s = getattr(failure, "retry_after_s", None) or 0
        assert pause_s >= max(0.1, min(wish_s, LONGEST_WISH_S))
        assert pause_s <= LONGEST_WISH_S + REFUSED_RETRY_S
    backoff.reset()
    assert backoff.pause_s(ServerAway("away")) <= 0.5


def test_pauses_grow_to_their_limit_and_differ_between_agents() -> None:
    ends = []
    for _ in range(20):
        backoff = Backoff()
        pauses = [backoff.pause_s(ServerAway("away")) for _ in range(12)]
        assert max(pauses) <= LAST_RETRY_S
        ends.append(pauses[-1])
    assert max(ends) > LAST_RETRY_S / 4
    assert len(set(ends)) == 20


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(500), "HTTP 500"),
        (Fault(503, headers={"Retry-After": "7"}), "HTTP 503"),
        (Fault(429, headers={"Retry-After": "\xb2"}), "HTTP 429"),
        (Fault(200, body=b"<html>a captive portal"), "an answer that is not JSON"),
    ],
)
def test_an_answer_that_says_later_is_told_from_one_that_says_no(server: TinyServer, fault: Fault, expected) -> None:
    server.faults["/api/heartbeat"] = fault
    with pytest.raises(ServerAway, match=expected) as caught:
        Client(server.url, "token").post("/api/heartbeat", {})
    assert caught.value.retry_after_s == (7 if fault.status == 503 else None)


def test_a_refusal_carries_the_servers_own_words_and_a_redirect_is_not_followed(server: TinyServer) -> None:
    client = Client(server.url, "unknown")
    with pytest.raises(Refused, match=r"This token is unknown\.") as caught:
        client.post("/api/heartbeat", {})
    assert caught.value.status == 401
    server.faults["/api/heartbeat"] = Fault(302, headers={"Location": f"{server.url}/elsewhere"}, body=b"moved")
    with pytest.raises(Refused, match="HTTP 302"):
        client.post("/api/heartbeat", {})
    assert server.of("/elsewhere") == server.of("/elsewhere", "GET") == []


def test_nobody_there_is_a_server_that_is_away() -> None:
    with pytest.raises(ServerAway, match="ConnectionError"):
        Client(f"http://127.0.0.1:{free_port()}", "token").post("/api/heartbeat", {})


@pytest.mark.parametrize(
    ("flags", "token", "says"),
    [
        (["--server", "lablink.example.org"], None, "--server"),
        (["--server", "http://a b"], None, "--server"),
        (["--server", "http://127.0.0.1:99999"], None, "--server"),
        ([], None, "--server"),
        (["--server", "http://x", "--hostname", "GPU_1"], None, "--hostname"),
        (["--server", "http://x", "--hostname", "../x"], None, "--hostname"),
        (["--server", "http://x"], "…", "enrolment token"),
        (["--server", "http://x"], "two words", "enrolment token"),
        (["--server", "http://x", "--enrolment-token-file", "/nonexistent"], None, "--enrolment-token-file"),
        (["--server", "http://x", "--enrolment-token-file", "/bin/sh"], None, "--enrolment-token-file"),
    ],
)
def test_a_wrong_start_ends_with_what_is_allowed(flags: list[str], token: str | None, says: str, capsys) -> None:
    environment = {"LABLINK_HOSTNAME": "gpu-01"} | ({"LABLINK_ENROLMENT_TOKEN": token} if token else {})
    with pytest.raises(SystemExit) as caught:
        parse(flags, environment)
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert says in said.splitlines()[-1]
    assert "Traceback" not in said


def test_the_environment_stands_behind_the_flags(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    environment = {
        "LABLINK_SERVER_URL": "https://lablink.example.org/",
        "LABLINK_HOSTNAME": "gpu-01",
        "LABLINK_AGENT_HOME": str(tmp_path),
        "LABLINK_BOOT_ID": "boot-9",
        "LABLINK_ENROLMENT_TOKEN": "of-the-environment",
    }
    config = parse([], environment)
    assert (config.server_url, config.hostname, config.boot_id) == ("https://lablink.example.org", "gpu-01", "boot-9")
    assert (config.home, config.enrolment_token) == (tmp_path, "of-the-environment")
    flags = ["--hostname", "gpu-02", "--enrolment-token-file", str(tmp_path / "token")]
    assert (parse(flags, environment).hostname, parse(flags, environment).enrolment_token) == ("gpu-02", "of-the-file")


def test_a_boot_without_a_name_of_its_own_has_the_kernels() -> None:
    first, second = (parse(["--server", "http://x", "--hostname", "gpu-01"], {}) for _ in range(2))
    assert first.boot_id
    assert first.boot_id == second.boot_id
