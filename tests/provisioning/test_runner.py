from __future__ import annotations

import json
import shutil
import types
from pathlib import Path

import pytest

from backend.errors import LabLinkError, Unavailable
from backend.provisioning.guard import check_plan
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.providers import Backend, ProviderVm
from backend.provisioning.providers.local import LocalProvider
from backend.provisioning.runner import PLAN, TerraformCancelled, TerraformFailed, TerraformRunner
from backend.provisioning.state_files import read_own_state
from backend.settings import load_settings

POOL = types.SimpleNamespace(startup_script=None, cleaning_script=None, repository=None)


@pytest.fixture
def runner(tmp_path: Path):
    """A runner of the local module, whose agents find no server."""
    provider = LocalProvider(load_settings(["server.port=9"], environment={"LABLINK_HOME": str(tmp_path / "home")}))
    terraform = Path(shutil.which("terraform") or "terraform")
    made = TerraformRunner(terraform, provider.module, tmp_path / "home" / "pools" / "1")
    made.provider = provider  # type: ignore[attr-defined]
    yield made
    vms = LocalVms(tmp_path / "home" / "vms")
    for hostname in vms.list_existing():
        vms.stop(hostname)


async def plan_for(runner: TerraformRunner, *hostnames: str) -> dict[str, str]:
    """Plans for these machines; returns what would happen to each, and keeps the plan in ``runner.shown``."""
    inputs = runner.provider.write_inputs(  # type: ignore[attr-defined]
        runner.directory, POOL, [ProviderVm(name, f"token-of-{name}") for name in hostnames]
    )
    runner.environment = inputs.environment
    runner.shown = await runner.plan(inputs.tfvars, parallelism=4)  # type: ignore[attr-defined]
    return {each.key: each.action for each in runner.shown}  # type: ignore[attr-defined]


async def test_plans_say_what_would_happen_and_the_guard_reads_them(runner) -> None:
    await runner.init()
    assert await runner.list_vms() == {}
    assert await plan_for(runner, "a", "b") == {"a": "create", "b": "create"}
    await runner.apply(parallelism=4)
    assert not (runner.directory / PLAN).exists()
    assert await runner.list_vms() == {"a": True, "b": True}

    await runner._run("taint", 'terraform_data.vm["b"]')
    assert await runner.list_vms() == {"a": True, "b": False}
    assert await plan_for(runner, "b", "c") == {"a": "delete", "b": "replace", "c": "create"}
    verdict = check_plan(runner.shown, destroying=["a"], living=["a"])
    assert (verdict.refusals, verdict.replaced) == ((), ("b",))
    assert not check_plan(runner.shown, destroying=[], living=["a"]).is_allowed
    assert not check_plan(runner.shown, destroying=["a"], living=["b"]).is_allowed

    await runner.count_as_whole("b")
    assert await plan_for(runner, "a", "b", "c") == {"c": "create"}
    assert check_plan(runner.shown, destroying=[], living=["a", "b", "c"]).is_allowed


@pytest.fixture
def inits(runner, monkeypatch) -> list[str]:
    """The commands that Terraform was run with, of those that install providers."""
    asked: list[str] = []
    run_once = TerraformRunner._run_once

    async def noting(self, command: str, *arguments: str, **options) -> None:
        if command == "init":
            asked.append(command)
        await run_once(self, command, *arguments, **options)

    monkeypatch.setattr(TerraformRunner, "_run_once", noting)
    return asked


async def test_a_directory_is_made_ready_once_for_as_long_as_all_is_as_it_was(runner, inits) -> None:
    for _ in range(3):
        await runner.init()
    assert len(inits) == 1
    assert await plan_for(runner, "a") == {"a": "create"}


async def test_whatever_init_depends_on_has_it_done_anew(runner, inits, tmp_path) -> None:
    runner.module = Path(shutil.copytree(runner.module, tmp_path / "module"))
    await runner.init()
    changes = {
        "the module": lambda: (runner.module / "main.tf").open("a").write("# later\n"),
        "its copy": lambda: (runner.directory / "main.tf").write_text("# by hand\n"),
        "an override": lambda: (runner.directory / "by_hand_override.tf").write_text("locals {}\n"),
        "the environment": lambda: setattr(runner, "environment", {"TF_PLUGIN_CACHE_DIR": str(tmp_path)}),
        "what was installed": lambda: shutil.rmtree(runner.directory / ".terraform"),
    }
    for number, (what, change) in enumerate(changes.items(), start=2):
        change()
        await runner.init()
        assert len(inits) == number, what
    assert (runner.directory / "main.tf").read_text() == (runner.module / "main.tf").read_text()
    gone = runner.directory / ".terraform/providers/registry.terraform.io/hashicorp/aws/5.100.0/linux_amd64"
    gone.parent.mkdir(parents=True)
    gone.symlink_to(tmp_path / "emptied")
    await runner.init()
    assert len(inits) == len(changes) + 2


async def test_after_a_failure_a_directory_is_made_ready_anew(runner, inits) -> None:
    await runner.init()
    with pytest.raises(TerraformFailed):
        await plan_for(runner, "Not_A_Name")
    await runner.init()
    assert len(inits) == 2


async def test_a_state_that_is_kept_elsewhere_or_unknown_to_us_is_asked_of_terraform(runner) -> None:
    await runner.init()
    state, noted = runner.directory / "terraform.tfstate", runner.directory / ".terraform/terraform.tfstate"
    assert read_own_state(runner.directory) == {}
    state.write_text('{"version": 4, "resources": []}')
    assert read_own_state(runner.directory) == {"version": 4, "resources": []}
    for backend, is_here in (("null", True), ('{"type": "local"}', True), ('{"type": "s3"}', False)):
        noted.write_text(f'{{"version": 3, "backend": {backend}}}')
        assert (read_own_state(runner.directory) is not None) is is_here
    noted.unlink()
    state.write_text('{"version": 5}')
    assert read_own_state(runner.directory) is None
    with pytest.raises(TerraformFailed, match="state pull"):
        await runner.list_vms()


async def test_a_state_elsewhere_is_read_past_terraform_unless_that_fails(runner, monkeypatch) -> None:
    held = {"mode": "managed", "type": "terraform_data", "name": "vm", "instances": [{"index_key": "a"}]}
    answers: list[bytes | LabLinkError | None] = [
        json.dumps({"version": 4, "resources": [held]}).encode(),
        None,
        b'{"version": 5}',
        Unavailable("S3 does not answer."),
    ]

    async def fetch() -> bytes | None:
        answer = answers.pop(0)
        if isinstance(answer, LabLinkError):
            raise answer
        return answer

    async def asked(self: TerraformRunner, command: str, *_: str, **__: object) -> dict[str, object]:
        assert command == "state pull"
        return {"resources": [{**held, "instances": [{"index_key": "b"}]}]}

    monkeypatch.setattr(TerraformRunner, "_read_json", asked)
    runner.backend, runner.fetch_state = Backend("s3", {}), fetch
    assert [list(await runner.list_vms()) for _ in range(4)] == [["a"], ["b"], ["b"], ["b"]]


async def test_an_error_is_told_in_terraforms_own_words_and_a_cancel_as_one(runner) -> None:
    await runner.init()
    with pytest.raises(
        TerraformFailed, match=r"^terraform plan: Error: Invalid value for variable: A hostname has 1 to"
    ):
        await plan_for(runner, "Not_A_Name")
    runner.cancel.set()
    with pytest.raises(TerraformCancelled):
        await plan_for(runner, "a")


async def test_a_state_that_cannot_be_read_is_an_error_and_no_empty_pool(runner) -> None:
    await runner.init()
    (runner.directory / "terraform.tfstate").write_text("{ half a state")
    with pytest.raises(TerraformFailed):
        await runner.list_vms()


async def test_a_state_emptied_by_a_killed_run_is_the_one_before_it_again(runner) -> None:
    await runner.init()
    state = runner.directory / "terraform.tfstate"
    state.touch()
    assert await runner.list_vms() == {}
    assert not state.exists()
    for names in (("a",), ("a", "b")):
        await plan_for(runner, *names)
        await runner.apply(parallelism=4)
    state.write_text("")
    assert await runner.list_vms() == {"a": True}
    state.write_text("")
    await runner.init()
    assert await plan_for(runner, "a", "c") == {"c": "create"}


def test_terraform_sees_none_of_our_secrets_and_nobodys_terraform_variables(runner, monkeypatch) -> None:
    for name in ("TF_VAR_hostnames", "TF_LOG", "TF_CLI_ARGS", "TF_WORKSPACE", "LABLINK_ADMIN_PASSWORD"):
        monkeypatch.setenv(name, "from outside")
    for name in ("LABLINK_API_TOKEN", "LABLINK_DATABASE_URL", "LABLINK_KEYS", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "from outside")
    runner.directory.mkdir(parents=True)
    runner.environment = runner.provider.write_inputs(runner.directory, POOL, []).environment
    environment = runner._environment()
    assert "from outside" not in environment.values()
    assert {name for name in environment if name.startswith("TF_")} == {"TF_IN_AUTOMATION", "TF_INPUT"}
    assert {name for name in environment if name.startswith("LABLINK_")} == {"LABLINK_VMS_ROOT", "LABLINK_VM_INPUTS"}
