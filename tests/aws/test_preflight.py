"""What is looked at before a launch on AWS, line by line: against a local AWS, with stubs for what that lacks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from backend.db.engine import Database
from backend.provisioning.aws.clients import AwsClients
from backend.provisioning.aws.preflight import Preflight
from backend.provisioning.aws.state import StateBucket
from backend.provisioning.checks import Check
from backend.services.aws_spec import AwsSpec
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.views import PoolView
from tests.aws.stubs import StubbedClients, denied, quota
from tests.aws.test_ec2 import SERVER
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, LocalAws
from tests.harness.server import free_port
from tests.services.worlds import ADMIN

TAGS = {"ManagedBy": "lablink", "Environment": "dev", "Server": SERVER}


@pytest.fixture(scope="module")
async def aws(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalAws]:
    """An account of their own: whatever runs in it counts against its quota."""
    made = LocalAws(tmp_path_factory.mktemp("aws"))
    yield await made.start()
    made.close()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def pool(db: Database) -> PoolView:
    spec = AwsSpec(ami=AMI_PARAMETER, instance_types=("g4dn.xlarge",), zones=("us-east-1a",))
    return await ensure_pool(db, "gpu", PoolSpec(provider="aws", providers=("aws",), aws=spec), actor=ADMIN)


def but(pool: PoolView, **changes: object) -> PoolView:
    return replace(pool, aws=replace(pool.aws, **changes))


async def look(
    clients: AwsClients, pool: PoolView, count: int = 1, *, bucket: str | None = None, server: str = SERVER
) -> dict[str, Check]:
    kept = StateBucket(clients, bucket, "dev") if bucket else None
    return {each.name: each for each in await Preflight(clients, TAGS, server, kept).look(pool, count)}


async def test_an_account_where_all_is_well_is_ok_in_every_line(aws: LocalAws, pool: PoolView) -> None:
    lines = await look(StubbedClients(aws, service_quotas=quota(16)), pool, 3)
    assert {name: each.status for name, each in lines.items()} == dict.fromkeys(
        (
            "Credentials",
            "Permissions",
            "Instance type",
            "AMI",
            "Subnet addresses",
            "vCPU quota",
            "State",
            "Server address",
        ),
        "ok",
    )
    assert "account 123456789012" in lines["Credentials"].sentence
    assert lines["vCPU quota"].sentence == "3 × g4dn.xlarge take 12 vCPUs; 0 of 16 run."
    assert not any(each.remedy for each in lines.values())
    assert (
        await aws.ask("ec2", "describe_security_groups", Filters=[{"Name": "group-name", "Values": ["lablink-*"]}])
    )["SecurityGroups"] == []


async def test_what_runs_counts_against_the_quota_of_its_family_and_the_remedy_says_how_many_fit(
    aws: LocalAws, pool: PoolView
) -> None:
    ami = await aws.ask("ssm", "get_parameter", Name=AMI_PARAMETER)
    run = {"ImageId": ami["Parameter"]["Value"], "MinCount": 1, "MaxCount": 1}
    made = [
        (await aws.ask("ec2", "run_instances", InstanceType=kind, **run))["Instances"][0]["InstanceId"]
        for kind in ("g5.2xlarge", "m5.4xlarge")
    ]
    try:
        few = (await look(StubbedClients(aws, service_quotas=quota(16)), pool, 3))["vCPU quota"]
        assert (few.status, few.sentence) == ("problem", "3 × g4dn.xlarge take 12 vCPUs; 8 of 16 run.")
        assert few.remedy == (
            "Launch at most 2, or ask AWS for more: Running On-Demand G and VT instances (L-DB2E81BA)."
        )
        spot = StubbedClients(aws, service_quotas=quota(16, "L-3819A6DF"))
        assert (await look(spot, but(pool, spot=True), 4))["vCPU quota"].status == "ok"
    finally:
        await aws.ask("ec2", "terminate_instances", InstanceIds=made)
    new_account = (await look(StubbedClients(aws, service_quotas=quota(0)), pool))["vCPU quota"]
    assert new_account.status == "problem"
    assert "Launch at most 0, or ask AWS" in new_account.remedy


async def test_what_aws_will_not_tell_is_a_warning_and_not_a_problem(aws: LocalAws, pool: PoolView) -> None:
    refused = await look(StubbedClients(aws, service_quotas=denied("get_service_quota")), pool)
    assert refused["vCPU quota"].status == "warning"
    assert "GetServiceQuota" in refused["vCPU quota"].sentence
    assert {each.status for name, each in refused.items() if name != "vCPU quota"} == {"ok"}


async def test_a_dry_run_that_is_refused_names_what_is_not_allowed(
    aws: LocalAws, pool: PoolView, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aws.ask("iam", "create_user", UserName="reader")
    policy = {"Effect": "Allow", "Action": ["ec2:Describe*", "ec2:CreateSecurityGroup", "ssm:Get*"], "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [policy]})
    await aws.ask("iam", "put_user_policy", UserName="reader", PolicyName="read", PolicyDocument=document)
    key = (await aws.ask("iam", "create_access_key", UserName="reader"))["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    async with httpx.AsyncClient(base_url=aws.url, trust_env=False) as client:
        await client.post("/moto-api/reset-auth", content="0")
        try:
            lines = await look(StubbedClients(aws, service_quotas=quota(16)), pool)
        finally:
            await client.post("/moto-api/reset-auth", content="inf")
    assert lines["Credentials"].sentence.startswith("The server acts as arn:aws:iam::123456789012:user/reader")
    assert lines["Permissions"].status == "problem"
    assert lines["Permissions"].sentence == "The server may not use ec2:RunInstances."
    assert "policy" in lines["Permissions"].remedy
    assert lines["AMI"].status == "ok"


async def test_credentials_that_aws_does_not_take_are_the_only_line(aws: LocalAws, pool: PoolView) -> None:
    expired = StubbedClients(aws, sts=denied("get_caller_identity", "ExpiredToken"))
    (line,) = (await look(expired, pool)).values()
    assert (line.name, line.status) == ("Credentials", "problem")
    assert "does not take the server's credentials" in line.sentence
    away = AwsClients(REGION, endpoint_url=f"http://127.0.0.1:{free_port()}")
    (line,) = (await look(away, pool)).values()
    assert (line.name, line.status) == ("Credentials", "problem")
    assert line.sentence.startswith("AWS cannot be reached")


@pytest.mark.parametrize(
    ("changes", "name", "status", "said"),
    [
        ({"instance_types": ("q9.mini",)}, "Instance type", "problem", "q9.mini cannot be had in us-east-1a"),
        ({"instance_types": ("g4dn.xlarge", "q9.mini")}, "Instance type", "warning", "q9.mini cannot be had"),
        ({"zones": ("us-east-1z",)}, "Subnet addresses", "problem", "The pool has no subnet"),
        ({"ami": "ami-0123456789abcdef0"}, "AMI", "problem", "There is no ami-0123456789abcdef0 in us-east-1."),
        ({"ami": "/no/such/parameter"}, "AMI", "problem", "There is no /no/such/parameter in us-east-1."),
        ({"vpc_id": "vpc-0123456789abcdef0"}, "Subnet addresses", "problem", "The pool has no subnet"),
    ],
)
async def test_a_specification_that_cannot_be_made_here_is_told_with_its_remedy(
    aws: LocalAws, pool: PoolView, changes: dict, name: str, status: str, said: str
) -> None:
    line = (await look(StubbedClients(aws, service_quotas=quota(16)), but(pool, **changes)))[name]
    assert line.status == status
    assert said in line.sentence
    assert line.remedy


async def test_a_subnet_with_too_few_addresses_is_told(aws: LocalAws, pool: PoolView) -> None:
    vpc = (await aws.ask("ec2", "create_vpc", CidrBlock="10.9.0.0/16"))["Vpc"]["VpcId"]
    subnets = [
        (await aws.ask("ec2", "create_subnet", VpcId=vpc, CidrBlock=f"10.9.{n}.0/28", AvailabilityZone="us-east-1a"))
        for n in (1, 2)
    ]
    ids = tuple(each["Subnet"]["SubnetId"] for each in subnets)
    small = but(pool, zones=(), vpc_id=vpc, subnet_ids=ids)
    clients = StubbedClients(aws, service_quotas=quota(1_000))
    # A /28 has 11 addresses to give.
    assert {count: (await look(clients, small, count))["Subnet addresses"].status for count in (11, 12, 23)} == {
        11: "ok",
        12: "warning",
        23: "problem",
    }


async def test_the_state_s_bucket_and_its_lock_are_looked_at(aws: LocalAws, pool: PoolView) -> None:
    clients = StubbedClients(aws, service_quotas=quota(16))
    assert (await look(clients, pool, bucket="lablink-nowhere"))["State"].status == "problem"
    await aws.ask("s3", "create_bucket", Bucket="lablink-preflight")
    unversioned = (await look(clients, pool, bucket="lablink-preflight"))["State"]
    assert (unversioned.status, "former versions" in unversioned.sentence) == ("warning", True)
    on = {"Status": "Enabled"}
    await aws.ask("s3", "put_bucket_versioning", Bucket="lablink-preflight", VersioningConfiguration=on)
    assert (await look(clients, pool, bucket="lablink-preflight"))["State"].status == "ok"
    lock = b'{"Who": "ada@laptop", "Operation": "OperationTypeApply", "Created": "2026-01-02T03:04:05Z"}'
    key = f"pools/dev/{pool.id}-gpu.tfstate.tflock"
    await aws.ask("s3", "put_object", Bucket="lablink-preflight", Key=key, Body=lock)
    held = (await look(clients, pool, bucket="lablink-preflight"))["State"]
    assert held.status == "warning"
    assert "ada@laptop since 2026-01-02T03:04:05 (OperationTypeApply)" in held.sentence


async def test_machines_are_not_sent_to_an_address_of_this_computer_unnoticed(aws: LocalAws, pool: PoolView) -> None:
    lines = await look(StubbedClients(aws, service_quotas=quota(16)), pool, server="http://127.0.0.1:8080")
    assert lines["Server address"].status == "warning"
    assert "server.public_url" in lines["Server address"].remedy
