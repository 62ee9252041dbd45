"""The life of one cloud machine, in order: what can fail before its agent lives, its first boot, a later one, and what
can fail in the agent's own steps. The script is the real one, as root, with real pip, agent and git; what stands in for
what stands in `machine.py`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backend.provisioning import boot
from backend.provisioning.agent_package import agent_package
from backend.provisioning.boot import UserDataTooLarge
from tests.agent.tiny_server import ENROLMENT_TOKEN
from tests.boot.conftest import Birth
from tests.boot.machine import STAND_INS
from tests.harness.server import free_port
from tests.harness.waiting import until

UNIT = "lablink-agent.service"
SCRIPT = "echo the script says $LABLINK_CONTAINER; echo once more >> /srv/script.runs"


def test_the_script_and_the_stand_ins_are_clean(born: Birth, tmp_path: Path) -> None:
    rendered = tmp_path / "user-data.sh"
    rendered.write_text(born.user_data())
    files = [rendered, Path(boot.__file__).with_name("boot.sh"), *STAND_INS.iterdir()]
    subprocess.run(["shellcheck", *map(str, files)], check=True)


def test_whatever_a_value_holds_is_only_a_value(born: Birth) -> None:
    strange = 'it\'s $(touch /srv/harm) `touch /srv/harm` "image"; \\'
    values, _, _ = born.user_data(image=strange).partition("\nroot=")
    said = subprocess.run(["bash", "-c", f'{values}\nprintf %s "$image"'], capture_output=True, text=True, check=True)
    assert said.stdout == strange


def test_a_script_that_a_cloud_would_not_take_is_refused(born: Birth) -> None:
    with pytest.raises(UserDataTooLarge, match=r"gpu-01 would have 1\d,\d{3} bytes"):
        born.user_data(image="i" * 12_000)


def test_the_script_has_no_secret_but_the_enrolment_token(born: Birth) -> None:
    assert born.user_data().count(ENROLMENT_TOKEN) == 1
    assert len(born.user_data()) < 8_000


async def test_without_the_server_the_unit_fails_and_says_so(born: Birth) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    done = born.machine.run_user_data(born.user_data(server_url=nobody))
    assert done.returncode == 0, done.stderr
    assert "the server was not told" in done.stderr
    await born.until_journal_says("exit status 1")
    assert "step 'agent' failed" in born.machine.journal
    assert "Failed to connect" in born.machine.journal
    unit = (born.machine.root / "etc/systemd/system" / UNIT).read_text()
    assert "Restart=on-failure" in unit


async def test_a_machine_without_python_asks_its_package_manager_and_says_what_is_missing(born: Birth) -> None:
    # What this computer has is hidden behind programs of these names that fail.
    names = ("python3", *(f"python3.{minor}" for minor in (11, 12, 13, 14)))
    for name in names:
        born.machine.tell_stand_in(name, "#!/bin/sh\nexit 1\n")
        (born.machine.root / "stand-ins" / name).chmod(0o755)
    try:
        born.machine.run_user_data(born.user_data())
        step = await born.until_step("python")
        await born.until_journal_says("exit status 1")
    finally:
        for name in names:
            born.machine.tell_stand_in(name, None)
    assert step["status"] == "failed"
    assert step["lines"][-1].startswith("no Python 3.11 or later with venv is here")
    assert "install -y -qq python3 python3-venv" in born.machine.kept("apt-get.log")


@pytest.mark.parametrize("which", ["wheel_sha256", "requirements_sha256"])
async def test_a_file_that_is_not_the_one_it_was_made_for_is_not_installed(born: Birth, which: str) -> None:
    born.forget()
    born.machine.run_user_data(born.user_data(**{which: "0" * 64}))
    step = await born.until_step("agent")
    await born.until_journal_says("exit status 1")
    assert step["status"] == "failed"
    assert "is not the file that this machine was made for" in step["lines"][-1]
    assert not list((born.machine.root / "opt/lablink").glob("agent-*/venv"))


async def test_packages_that_do_not_match_the_lock_are_not_installed(born: Birth) -> None:
    """The lock as it stands: the index of the tests has other archives of the same versions."""
    born.forget()
    real, lock = agent_package(), born.server.files["/agent/requirements.txt"]
    born.server.files["/agent/requirements.txt"] = real.requirements
    try:
        born.machine.run_user_data(born.user_data(requirements_sha256=real.requirements_sha256))
        step = await born.until_step("agent")
        await born.until_journal_says("exit status 1")
    finally:
        born.server.files["/agent/requirements.txt"] = lock
    assert step["status"] == "failed"
    assert any("DO NOT MATCH THE HASHES" in line for line in step["lines"])
    assert len(step["lines"]) <= 40
    assert born.server.beats() == []


async def test_the_first_boot_ends_with_a_machine_that_is_ready(born: Birth, repository: str) -> None:
    born.forget()
    born.server.preparation = {"repository": repository, "startup_script": SCRIPT}
    done = born.machine.run_user_data(born.user_data())
    assert done.returncode == 0, done.stderr
    await born.until_phase("ready")
    steps = born.server.steps()
    # Done side by side by cloud-init and systemd: the first may be told after the second.
    assert sorted(step["step"] for step in steps[:3]) == ["agent", "python", "service"]
    assert [step["step"] for step in steps[3:]] == ["image", "repository", "container", "startup script"]
    assert all(step["status"] == "succeeded" and step["duration_s"] >= 0 for step in steps)
    assert next(step for step in steps if step["step"] == "agent")["duration_s"] > 0.1
    # The pip of Python itself was enough; to install one takes longer than the agent.
    assert not list((born.machine.root / "opt/lablink").glob("agent-*/venv/lib/python*/site-packages/pip"))
    await until(lambda: born.server.logs()["startup"] == ["the script says lablink-workload"])
    await until(lambda: born.server.logs()["workload"] == ["the container says lablink-workload"])
    assert (born.machine.root / "opt/lablink/home/workload/lesson.txt").read_text() == "one"
    pulled, ran = born.machine.kept("docker.log").splitlines()
    assert pulled == "pull --quiet lab/desk:1"
    assert "--restart unless-stopped" in ran
    assert "--volume /opt/lablink/home/workload:/workload" in ran


def test_nobody_but_root_can_read_the_machines_tokens(born: Birth) -> None:
    root = born.machine.root / "opt/lablink"
    assert root.stat().st_mode & 0o777 == 0o700
    for name in ("boot.sh", "enrolment.token", "home/agent.token"):
        assert (root / name).stat().st_mode & 0o077 == 0, name
    seen = born.machine.run("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ /etc/systemd/system/*.service")
    assert "lablink" in seen.stdout
    assert ENROLMENT_TOKEN not in seen.stdout
    assert born.server.agent_tokens[0] not in seen.stdout


async def test_a_later_boot_installs_nothing_and_brings_the_container_back(born: Birth) -> None:
    born.machine.power_off()
    born.forget()
    born.machine.tell_stand_in("docker.log", None)
    born.machine.boot()
    await born.until_phase("ready")
    assert [step["step"] for step in born.server.steps()] == ["container", "startup script"]
    assert born.machine.kept("docker.log") == "start lablink-workload\n"
    assert born.machine.kept("docker.state") == "running lab/desk:1\n"
    assert [each.token for each in born.server.of("/api/vm_startup")] == born.server.agent_tokens


async def test_an_image_that_cannot_be_pulled_is_a_reason(born: Birth) -> None:
    born.forget()
    born.machine.tell_stand_in("docker.fails-pull", "manifest for lab/desk:2 not found\n")
    born.machine.run_user_data(born.user_data(image="lab/desk:2"))
    beat = await born.until_phase("preparing", "unhealthy")
    assert beat["reasons"] == ["the pull of the image ended with exit status 1"]
    step = await born.until_step("image")
    assert (step["status"], step["lines"]) == ("failed", ["manifest for lab/desk:2 not found"])
    born.machine.tell_stand_in("docker.fails-pull", None)


async def test_another_image_takes_the_place_of_the_container(born: Birth) -> None:
    born.forget()
    born.machine.tell_stand_in("docker.log", None)
    born.machine.run("systemctl", "restart", UNIT)
    await born.until_phase("ready")
    assert [line.split()[0] for line in born.machine.kept("docker.log").splitlines()] == ["pull", "rm", "run"]


async def test_a_repository_that_cannot_be_cloned_is_a_reason(born: Birth) -> None:
    born.machine.run("rm", "-r", "/opt/lablink/home/workload")
    born.server.preparation = {"repository": "file:///srv/nothing", "startup_script": None}
    born.forget()
    born.machine.run("systemctl", "restart", UNIT)
    beat = await born.until_phase("preparing", "unhealthy")
    assert beat["reasons"] == ["the clone of the repository ended with exit status 128"]
    step = await born.until_step("repository")
    assert step["status"] == "failed"
    assert any("/srv/nothing" in line for line in step["lines"])


async def test_a_startup_script_that_fails_is_a_reason_and_is_run_again_once_it_is_mended(born: Birth) -> None:
    born.server.preparation = {"repository": None, "startup_script": "#!/bin/bash\necho no drivers\nexit 4\n"}
    born.machine.run("rm", "-f", "/opt/lablink/home/startup.boot")
    born.forget()
    born.machine.run("systemctl", "restart", UNIT)
    await born.until_phase("preparing", "unhealthy")
    step = await born.until_step("startup script")
    assert (step["status"], step["lines"]) == ("failed", ["no drivers"])
    born.server.preparation = {"repository": None, "startup_script": "exit 0"}
    born.machine.run("systemctl", "restart", UNIT)
    await born.until_phase("ready")
