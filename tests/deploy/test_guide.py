"""The guide says what there is: its commands are ones that the command line takes, its files are there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from lablink_ui.cli import parse
from tests.deploy.test_environments import DEPLOYER_POLICY

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/deployment.md").read_text()
COMMANDS = sorted({found.strip() for found in re.findall(r"lablink deploy [a-z]+ (?:dev|test|prod)[^\n`#]*", GUIDE)})


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_guide_is_one(command: str) -> None:
    given = parse(shlex.split(command)[1:])
    assert given.deploy_verb in {"bootstrap", "plan", "apply", "destroy"}


def test_the_guide_shows_every_verb() -> None:
    assert {command.split()[2] for command in COMMANDS} == {"bootstrap", "plan", "apply", "destroy"}


def test_the_guides_table_names_every_service_of_the_deployers_policy() -> None:
    statements = json.loads((ROOT / DEPLOYER_POLICY).read_text())["Statement"]
    services = {action.partition(":")[0] for statement in statements for action in statement["Action"]} - {"sts"}
    table = GUIDE[GUIDE.index("| the policy lets") : GUIDE.index("Whoever holds it")]
    assert set(re.findall(r"`([a-z0-9]+)`", table)) == services


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\((\.\./[^)#]+)\)", GUIDE))))
def test_a_file_of_the_guide_is_there(name: str) -> None:
    assert (ROOT / "docs" / name).exists()


def test_the_errands_of_the_guide_are_the_hosts() -> None:
    script = (ROOT / "terraform/allocator/host/lablink-host").read_text()
    for errand in set(re.findall(r"lablink-host ([a-z]+)", GUIDE)):
        assert re.search(rf"^ +{errand}\) ", script, re.MULTILINE), errand


def test_targets_of_the_guide_are_the_makefiles() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`(?:make )?((?:deploy|scan|push|sign)-[a-z]+|images)`", GUIDE)):
        assert re.search(rf"^({target}|deploy-%):", makefile, re.MULTILINE), target
