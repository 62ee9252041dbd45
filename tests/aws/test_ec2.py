"""What is done to instances beside Terraform: by exact tags, and never by guess."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from backend.provisioning.aws.ec2 import AwsFailed
from backend.provisioning.providers.aws import AwsProvider
from backend.settings import load_settings
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, LocalAws
from tests.harness.server import free_port

SERVER = "https://ours.example.org"


@pytest.fixture
def provider(tmp_path: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch) -> AwsProvider:
    return make_provider(tmp_path, aws, monkeypatch)


def make_provider(home: Path, aws: LocalAws, monkeypatch: pytest.MonkeyPatch, *settings: str) -> AwsProvider:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    given = [f"server.public_url={SERVER}", *aws.settings, *settings]
    return AwsProvider(load_settings(given, environment={"LABLINK_HOME": str(home)}))


async def run_instance(aws: LocalAws, hostname: str, **tags: str) -> str:
    """An instance as the module makes them; returns its id."""
    ami = await aws.ask("ssm", "get_parameter", Name=AMI_PARAMETER)
    ours = {"Name": hostname, "ManagedBy": "lablink", "Environment": "dev", "Server": SERVER, **tags}
    listed = [{"Key": key, "Value": value} for key, value in ours.items()]
    made = await aws.ask(
        "ec2",
        "run_instances",
        ImageId=ami["Parameter"]["Value"],
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": listed}],
    )
    return made["Instances"][0]["InstanceId"]


async def state_of(aws: LocalAws, *ids: str) -> list[str]:
    found = await aws.ask("ec2", "describe_instances", InstanceIds=list(ids))
    states = {one["InstanceId"]: one["State"]["Name"] for each in found["Reservations"] for one in each["Instances"]}
    return [states[each] for each in ids]


async def test_leftovers_are_taken_away_and_what_is_somebody_elses_is_not(aws: LocalAws, provider: AwsProvider) -> None:
    ours = await run_instance(aws, "left-001")
    others = [
        await run_instance(aws, "left-001", Server="https://theirs.example.org"),
        await run_instance(aws, "left-001", Environment="prod"),
        await run_instance(aws, "left-001", ManagedBy="hand"),
        await run_instance(aws, "left-002"),
    ]
    await provider.remove_leftovers([])
    await provider.remove_leftovers(["left-001", "left-003"])
    assert await state_of(aws, ours, *others) == ["terminated", *["running"] * 4]


async def test_a_star_in_a_tag_is_no_wildcard(aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = await run_instance(aws, "star-001", Server="https://any.example.org/x")
    provider = make_provider(tmp_path, aws, monkeypatch, "server.public_url='https://any.example.org/*'")
    await provider.remove_leftovers(["star-001"])
    assert await state_of(aws, theirs) == ["running"]


async def test_strangers_are_named_in_the_log_and_left_alone(aws: LocalAws, provider: AwsProvider, caplog) -> None:
    known, stranger = await run_instance(aws, "known-001"), await run_instance(aws, "strange-001")
    with caplog.at_level(logging.WARNING):
        assert await provider.remove_strangers(["known-001"]) == []
    assert f"{stranger} (strange-001, running) is tagged as ours, but no row knows it" in caplog.text
    assert known not in caplog.text
    assert await state_of(aws, known, stranger) == ["running", "running"]


async def test_power_goes_off_and_on_and_a_reboot_starts_what_is_off(aws: LocalAws, provider: AwsProvider) -> None:
    instance, beside = await run_instance(aws, "power-001"), await run_instance(aws, "power-002")
    await provider.power_off(["power-001"])
    assert await state_of(aws, instance, beside) == ["stopped", "running"]
    await provider.reboot("power-001")
    assert await state_of(aws, instance) == ["running"]
    await provider.power_off(["power-001"])
    await provider.power_on(["power-001"])
    await provider.reboot("power-001")
    assert await state_of(aws, instance, beside) == ["running", "running"]
    with pytest.raises(AwsFailed, match=r"There is no instance power-003 in us-east-1\."):
        await provider.reboot("power-003")


async def test_an_aws_that_does_not_answer_holds_up_no_start_and_is_told(
    aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    away = make_provider(tmp_path, aws, monkeypatch, f"aws.endpoint_url=http://127.0.0.1:{free_port()}")
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(5):
            assert await away.remove_strangers([]) == []
    assert "could not be found out" in caplog.text
