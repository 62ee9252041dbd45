"""Plans of the module for client VMs: what they touch, and the policy they keep."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.provisioning.guard import check_plan
from backend.provisioning.providers import ProviderVm
from backend.provisioning.providers.aws import AwsProvider
from backend.provisioning.runner import TerraformRunner
from backend.services.aws_spec import AwsSpec
from backend.settings import load_settings
from tests.aws.generated_state import AMI, generate_state
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, LocalAws
from tests.harness.plan_policy import list_offences

TERRAFORM = Path(shutil.which("terraform") or "terraform")
POOL = types.SimpleNamespace(id=1, name="gpu", provider="aws", aws=AwsSpec(ami=AMI_PARAMETER, volume_gb=60))
BOUNDARY = "arn:aws:iam::123456789012:policy/lablink-vm-boundary-dev"

ATTACHMENT = """resource "aws_iam_role_policy_attachment" "more" {
  role       = local.name
  policy_arn = "arn:aws:iam::aws:policy/AdministratorAccess"
}
#"""
# What somebody may do to the module one day: (in which file, what, in its place, what the policy says then).
LOOSENED = {
    "imdsv1": (
        "main.tf",
        'http_tokens                 = "required"',
        'http_tokens = "optional"',
        "does not require IMDSv2",
    ),
    "hops": ("main.tf", "hop_limit = 1", "hop_limit = 2", "lets containers reach the metadata service"),
    "plain_disk": ("main.tf", r"encrypted             = true", "encrypted = false", "that is not encrypted"),
    "old_disk": ("main.tf", '"gp3"', '"gp2"', "that is not gp3"),
    "open_ssh": ("network.tf", "= [cidr]", '= ["0.0.0.0/0"]', "opens ports 22 to 22 to the whole internet"),
    "open_ssh_v6": ("network.tf", "ipv6_cidr_blocks = []", 'ipv6_cidr_blocks = ["::/0"]', "to the whole internet"),
    "all_ports": (
        "network.tf",
        "from_port        = 22\n    to_port          = 22",
        "from_port = 0\n to_port = 65535",
        "5432",
    ),
    "postgres": ("network.tf", "port          = 22", "port = 5432", "opens Postgres's port 5432"),
    "any_action": ("access.tf", '"ssm:UpdateInstanceInformation"', '"ssm:*"', "allows ssm:*"),
    "any_resource": ("access.tf", r'resources = ["arn', 'resources = ["*", "arn', "Information on every resource"),
    "any_secret": (
        "access.tf",
        '"ssmmessages:OpenDataChannel"',
        '"ssm:GetParameter"',
        "GetParameter on every resource",
    ),
    "anyone": (
        "access.tf",
        'type        = "Service"\n      identifiers = ["ec2.amazonaws.com"]',
        'type = "AWS"\n identifiers = ["*"]',
        "trusts everybody",
    ),
    "managed": ("access.tf", "# Its private half", ATTACHMENT, "attaches AWS's own"),
}


@pytest.fixture
def provider(tmp_path: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> AwsProvider:
    return make_provider(tmp_path, aws, monkeypatch)


async def test_adding_one_machine_to_two_hundred_touches_one(
    tmp_path: Path, aws: LocalAws, provider: AwsProvider
) -> None:
    living = [f"gpu-{number:03d}" for number in range(1, 201)]
    runner = TerraformRunner(TERRAFORM, provider.module, tmp_path, environment=provider.environment)
    await runner.init()
    vpcs = await aws.ask("ec2", "describe_vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])
    was = provider.write_inputs(tmp_path, POOL, [])
    generate_state(runner, was.tfvars, living, vpc_id=vpcs["Vpcs"][0]["VpcId"])
    assert await runner.list_vms() == dict.fromkeys(living, True)

    # The specification has changed meanwhile in all that a machine is made of: those that live stay as they are.
    later = replace(POOL.aws, instance_types=("g5.xlarge",), zones=("us-east-1c",), volume_gb=500, spot=True)
    pool = types.SimpleNamespace(**{**vars(POOL), "aws": later})
    vms = [*(ProviderVm(name) for name in living), ProviderVm("gpu-999", "a-fresh-token")]
    inputs = provider.write_inputs(tmp_path, pool, vms)
    assert list(inputs.tfvars["user_data"]) == ["gpu-999"]
    changes = await runner.plan(inputs.tfvars, parallelism=inputs.parallelism, refresh=inputs.refresh)
    assert [(each.address, each.action) for each in changes] == [('aws_instance.vm["gpu-999"]', "create")]
    assert check_plan(changes, destroying=[], living=living).is_allowed


@pytest.fixture(scope="module")
async def plan(tmp_path_factory: pytest.TempPathFactory, aws: LocalAws) -> dict[str, Any]:
    """One plan: three machines of the module as it is, one elsewhere, and one of every loosened copy of it."""
    directory = tmp_path_factory.mktemp("loosened")
    (subnet, *_) = (await aws.ask("ec2", "describe_subnets"))["Subnets"]
    elsewhere = {"vpc_id": subnet["VpcId"], "subnet_ids": (subnet["SubnetId"],), "ami": AMI, "spot": True}
    with pytest.MonkeyPatch.context() as patch:
        provider = make_provider(directory, aws, patch, f"aws.permissions_boundary={BOUNDARY}")
        calls = {}
        for name, loosened in {"as_it_is": None, "elsewhere": None, **LOOSENED}.items():
            spec = replace(POOL.aws, ssh_cidrs=("192.0.2.0/24",), **(elsewhere if name == "elsewhere" else {}))
            pool = types.SimpleNamespace(**{**vars(POOL), "aws": spec})
            copy_module(provider.module, directory / name, loosened)
            vms = [ProviderVm(f"{name.replace('_', '-')}-{number:03d}", "a-token") for number in (1, 2, 3)]
            inputs = provider.write_inputs(directory, pool, vms if name == "as_it_is" else vms[:1])
            told = dict.fromkeys(inputs.tfvars["user_data"], "#!/bin/sh")
            calls[name] = {"source": f"./{name}", **inputs.tfvars, "user_data": told}
        root = {"provider": {"aws": {"region": REGION}}, "module": calls}
        (directory / "main.tf.json").write_text(json.dumps(root), encoding="utf-8")
        shutil.copy(provider.module / ".terraform.lock.hcl", directory)
        return {**await plan_all(directory, {**provider.environment}), "subnet_id": subnet["SubnetId"]}


@pytest.mark.parametrize("name", LOOSENED)
def test_a_module_that_somebody_loosened_is_told(plan: dict[str, Any], name: str) -> None:
    told = [each for each in list_offences(plan) if each.startswith(f"module.{name}.")]
    assert any(LOOSENED[name][3] in each for each in told), told


def test_the_module_as_it_is_keeps_the_policy(plan: dict[str, Any]) -> None:
    assert len([each for each in plan["resource_changes"] if each["address"].startswith("module.as_it_is.aws_")]) == 7
    assert [each for each in list_offences(plan) if each.startswith("module.as_it_is.")] == []


def test_spot_machines_in_a_subnet_and_of_an_ami_that_were_named(plan: dict[str, Any]) -> None:
    assert [each for each in list_offences(plan) if each.startswith("module.elsewhere.")] == []
    planned = {each["address"]: each["change"]["after"] for each in plan["resource_changes"]}
    machine = planned['module.elsewhere.aws_instance.vm["elsewhere-001"]']
    assert machine["subnet_id"] == plan["subnet_id"]
    assert machine["instance_market_options"][0]["market_type"] == "spot"
    assert planned["module.elsewhere.terraform_data.ami[0]"]["input"] == AMI
    assert "module.elsewhere.data.aws_ssm_parameter.ami[0]" not in planned
    assert "instance_market_options" not in planned['module.as_it_is.aws_instance.vm["as-it-is-001"]']


def test_every_name_and_tag_says_whose_it_is(plan: dict[str, Any]) -> None:
    named = {"Environment": "dev", "Pool": "gpu", "ManagedBy": "lablink", "Owner": "lablink", "Cost": "gpu"}
    for each in plan["planned_values"]["root_module"]["child_modules"]:
        if each["address"] != "module.as_it_is":
            continue
        for resource in each["resources"]:
            values = resource["values"]
            if resource["mode"] == "managed" and "tags" in values:
                assert named.items() <= values["tags"].items(), resource["address"]
            if resource["type"] in {"aws_security_group", "aws_iam_role", "aws_iam_instance_profile"}:
                assert values["name"] == "lablink-gpu-dev"
            if resource["type"] == "aws_iam_role":
                assert values["permissions_boundary"] == BOUNDARY


def make_provider(directory: Path, aws: LocalAws, patch: pytest.MonkeyPatch, *more: str) -> AwsProvider:
    for name, value in CREDENTIALS.items():
        patch.setenv(name, value)
    settings = ["server.public_url=https://lablink.example.org", *aws.settings, *more]
    return AwsProvider(load_settings(settings, environment={"LABLINK_HOME": str(directory / "home")}))


def copy_module(module: Path, to: Path, loosened: tuple[str, str, str, str] | None) -> None:
    """A copy without its provider block (the root has one for all), and with one thing changed."""
    to.mkdir()
    for source in module.glob("*.tf"):
        content = re.sub(r'provider "aws" {[^}]*}', "", source.read_text(encoding="utf-8"))
        if loosened and loosened[0] == source.name:
            assert loosened[1] in content, loosened[1]
            content = content.replace(loosened[1], loosened[2])
        (to / source.name).write_text(content, encoding="utf-8")


async def plan_all(directory: Path, environment: dict[str, str]) -> dict[str, Any]:
    async def terraform(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            TERRAFORM,
            *arguments,
            cwd=directory,
            env={"PATH": os.environ["PATH"], "HOME": str(directory), **environment},
            stdout=-1,
            stderr=-1,
        )
        said, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return said.decode()

    await terraform("init", "-input=false", "-no-color")
    await terraform("plan", "-input=false", "-no-color", "-out=plan.out")
    return json.loads(await terraform("show", "-json", "plan.out"))
