from __future__ import annotations

import shutil
import types
from pathlib import Path

import pytest

from backend.provisioning.guard import check_plan
from backend.provisioning.local_vms import LocalVms
from backend.provisioning.providers import ProviderVm
from backend.provisioning.providers.local import LocalProvider
from backend.provisioning.runner import PLAN, TerraformCancelled, TerraformFailed, TerraformRunner
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
