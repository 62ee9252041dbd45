"""`lablink rehearse` as a command: what is wrong with its line is said in one, before anything is done."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lablink_ui.cli import main
from lablink_ui.rehearse_cli import _moment
from tests.harness.server import free_port


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LABLINK_API_TOKEN", "LABLINK_API_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "arguments", [(), ("lab",), ("lab", "--people", "many"), ("lab", "--people", "3", "--starts", "soon")]
)
def test_a_wrong_line_is_refused(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["rehearse", *arguments])
    assert caught.value.code == 2
    assert "usage: lablink rehearse" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "token", "words"),
    [
        ((), None, "set LABLINK_API_TOKEN"),
        (("--server", "example.org"), "t" * 24, "no address"),
        (("--server", f"http://127.0.0.1:{free_port()}"), "t" * 24, "does not answer"),
    ],
)
def test_without_a_token_an_address_or_a_server_it_says_so(
    options: tuple[str, ...],
    token: str | None,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if token:
        (tmp_path / "token").write_text(f"{token}\n")
        monkeypatch.setenv("LABLINK_API_TOKEN_FILE", str(tmp_path / "token"))
    assert main(["rehearse", "lab", "--people", "3", *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "t" * 24 not in said
    assert said.count("\n") == 1


def test_a_time_of_the_day_is_the_next_one() -> None:
    first = _moment("09:00")
    assert (first.hour, first.minute, first.tzinfo is not None) == (9, 0, True)
    assert first - timedelta(days=1) <= _moment(f"{first:%Y-%m-%d}T08:59") + timedelta(days=0)
    assert _moment("2027-01-11T09:00+05:00").utcoffset() is not None
