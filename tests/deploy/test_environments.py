"""Three environments in one account: made, looked at, and taken away, by the command and with the real provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from backend.settings import load_settings
from tests.deploy.calls import read_actions
from tests.deploy.iam import Policy
from tests.deploy.world import KEY, WITHOUT_LIFECYCLE, Deployer
from tests.harness.local_aws import REGION, LocalAws, tags_of
from tests.harness.plan_policy import PUBLIC_PORTS, list_offences

ENVIRONMENTS = ("dev", "test", "prod")
ACCOUNT = "123456789012"
BACKUP = "20261101T031700Z/database.dump"
DEPLOYER_POLICY = Path("terraform/allocator/deployer-policy.json")


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[LocalAws]:
    """A local AWS that writes down what it is asked."""
    local = await LocalAws(tmp_path, recording=tmp_path / "recording").start()
    yield local
    local.close()


# One test, since making and ending hosts is nearly all waiting, which three do at once.
@pytest.mark.long
@pytest.mark.timeout(600)
async def test_three_environments_live_side_by_side_and_end_one_by_one(aws: LocalAws, tmp_path: Path) -> None:
    deployers = {environment: Deployer(aws, tmp_path / environment) for environment in ENVIRONMENTS}
    status, said = await deployers["test"].make("plan", "test")
    assert (status != 0, "lablink deploy bootstrap test" in said) == (True, True), said

    await asyncio.gather(*(bring_up(deployers[environment], environment) for environment in ENVIRONMENTS))
    hosts = aws.list_instances(ManagedBy="lablink-deploy")
    assert sorted(hosts) == [f"lablink-allocator-{environment}" for environment in sorted(ENVIRONMENTS)]
    for environment in ENVIRONMENTS:
        check_host(aws, environment, tmp_path)
    check_states(aws, tmp_path)
    assert not await own_things_without_a_suffix(aws)

    await lock(aws, "prod")
    status, said = await deployers["prod"].deploy("apply", "prod", "--yes")
    assert (status, "Error acquiring the state lock" in said) == (1, True), said
    await unlock(aws, "prod")

    put_backup(aws, "dev")
    await asyncio.gather(
        keep_and_take_in_again(deployers["dev"], aws),
        *(take_away(deployers[environment], environment) for environment in ("test", "prod")),
    )
    assert what_is_left(aws) == [f"lablink-state-{ACCOUNT}-{REGION}-prod", f"lablink-state-{ACCOUNT}-{REGION}-test"]
    policy = Policy(json.loads(DEPLOYER_POLICY.read_text()))
    assert [each for each in sorted(read_actions(tmp_path / "recording", KEY)) if not policy.names(each)] == []


@pytest.mark.patient
@pytest.mark.timeout(600)
async def test_an_environment_is_made_and_taken_away_again(aws: LocalAws, tmp_path: Path) -> None:
    deployer = Deployer(aws, tmp_path / "test", override=WITHOUT_LIFECYCLE)
    for verb, more, words in (
        ("bootstrap", {}, "The state's bucket is ready"),
        ("apply", {"CONFIRM": "test"}, "https://lab.example.org"),
    ):
        status, said = await deployer.make(verb, "test", **more)
        assert (status, words in said) == (0, True), said
    check_host(aws, "test", tmp_path)
    check_what_is_not_asked_for(aws, "test")
    await take_away(deployer, "test")
    assert what_is_left(aws) == [f"lablink-state-{ACCOUNT}-{REGION}-test"]
    policy = Policy(json.loads(DEPLOYER_POLICY.read_text()))
    assert [each for each in sorted(read_actions(tmp_path / "recording", KEY)) if not policy.names(each)] == []


async def bring_up(deployer: Deployer, environment: str) -> None:
    """Makes it; a second plan finds nothing to change, and all of it holds to the policy."""
    for _ in range(0 if environment == "dev" else 2):
        status, said = await deployer.deploy("bootstrap", environment)
        assert status == 0, said
    if environment == "test":
        # A word that somebody typed into a pipeline's form is judged by the command as well.
        status, said = await deployer.make("apply", environment, CONFIRM="tset")
        assert (status != 0, "Nothing was changed." in said) == (True, True), said
        status, said = await deployer.make("apply", environment, CONFIRM=environment)
    else:
        status, said = await deployer.deploy("apply", environment, typed=f"{environment}\n")
    assert status == 0, said
    assert "https://lab.example.org" in said
    plan = await deployer.plan(environment)
    assert {tuple(each["change"]["actions"]) for each in plan["resource_changes"]} == {("no-op",)}
    assert list_offences(plan, public_ports=PUBLIC_PORTS) == []


def check_host(aws: LocalAws, environment: str, home: Path) -> None:
    """The host as EC2 has it."""
    name = f"lablink-allocator-{environment}"
    host, ec2 = aws.list_instances(Environment=environment)[name], aws.client("ec2")
    assert host["MetadataOptions"]["HttpTokens"] == "required"
    assert host["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
    assert host["IamInstanceProfile"]["Arn"].endswith(f"/{name}")
    (disk,) = ec2.describe_volumes(VolumeIds=[host["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"]
    assert (disk["Encrypted"], disk["Size"], disk["VolumeType"]) == (True, 30, "gp3")
    (group,) = ec2.describe_security_groups(GroupIds=[host["SecurityGroups"][0]["GroupId"]])["SecurityGroups"]
    assert sorted(rule["FromPort"] for rule in group["IpPermissions"]) == [80, 443]
    addresses = ec2.describe_addresses()["Addresses"]
    (address,) = [each for each in addresses if tags_of(each)["Environment"] == environment]
    assert address["InstanceId"] == host["InstanceId"]
    run = json.loads(aws.client("ssm").get_parameter(Name=f"/lablink/{environment}/run")["Parameter"]["Value"])
    assert run["image"] == "ghcr.io/example/lablink-allocator:1.2.3"
    check_settings(run["settings"], environment, home)


def check_what_is_not_asked_for(aws: LocalAws, environment: str) -> None:
    """A name is made where a zone is given, and RDS where it is wanted: not here."""
    bucket = f"lablink-state-{ACCOUNT}-{REGION}-{environment}"
    state = json.loads(aws.client("s3").get_object(Bucket=bucket, Key="allocator/terraform.tfstate")["Body"].read())
    made = {each["type"] for each in state["resources"]}
    assert "aws_instance" in made
    assert made.isdisjoint({"aws_route53_record", "aws_db_instance"})


def check_settings(told: dict[str, Any], environment: str, home: Path) -> None:
    """What the host is told are settings that the server takes."""
    file = home / "told.yaml"
    file.write_text(json.dumps(told))
    settings = load_settings([], file=file, environment={"LABLINK_HOME": str(home)})
    assert (settings.public_url, settings.server.host) == ("https://lab.example.org", "127.0.0.1")
    assert (settings.pool.default.provider, settings.pool.default.max) == ("aws", 7)
    assert (settings.aws.environment, settings.aws.owner) == (environment, "ada@example.org")
    assert settings.aws.permissions_boundary == f"arn:aws:iam::{ACCOUNT}:policy/lablink-vm-boundary-{environment}"


def check_states(aws: LocalAws, homes: Path) -> None:
    """Two states in buckets that keep every version, encrypted and private; one on this computer."""
    s3 = aws.client("s3")
    assert (homes / "dev/deploy/dev/terraform.tfstate").stat().st_size > 1_000
    for environment in ("test", "prod"):
        bucket = f"lablink-state-{ACCOUNT}-{REGION}-{environment}"
        keys = [each["Key"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        assert keys == ["allocator/terraform.tfstate"]
        assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"
        assert s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
        assert all(s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"].values())
        assert not (homes / environment / "deploy" / environment / "terraform.tfstate").exists()


async def own_things_without_a_suffix(aws: LocalAws) -> list[str]:
    """The names of ours that do not end with their environment, or bear it within as parameters do."""
    names = [
        *(each["RoleName"] for each in (await aws.ask("iam", "list_roles"))["Roles"]),
        *(each["InstanceProfileName"] for each in (await aws.ask("iam", "list_instance_profiles"))["InstanceProfiles"]),
        *(each["PolicyName"] for each in (await aws.ask("iam", "list_policies", Scope="Local"))["Policies"]),
        *(each["Name"] for each in (await aws.ask("s3", "list_buckets"))["Buckets"]),
        *(each["Name"] for each in (await aws.ask("secretsmanager", "list_secrets"))["SecretList"]),
    ]
    assert len(names) >= 17
    return [name for name in names if not name.endswith(("-dev", "-test", "-prod"))]


def bucket_of(environment: str) -> str:
    return f"lablink-backup-{ACCOUNT}-{REGION}-{environment}"


def put_backup(aws: LocalAws, environment: str) -> None:
    """As the host does, but for one thing: the bucket takes nothing over an open connection, as ours is here."""
    s3, backup = aws.client("s3"), {"Bucket": bucket_of(environment), "Key": BACKUP, "Body": b"precious"}
    with pytest.raises(ClientError, match="403"):
        s3.put_object(**backup)
    s3.delete_bucket_policy(Bucket=bucket_of(environment))
    s3.put_object(**backup)


async def lock(aws: LocalAws, environment: str) -> None:
    """Somebody else is at it."""
    body = json.dumps({"ID": "other", "Operation": "OperationTypeApply", "Who": "somebody@else"})
    bucket = f"lablink-state-{ACCOUNT}-{REGION}-{environment}"
    await aws.ask("s3", "put_object", Bucket=bucket, Key="allocator/terraform.tfstate.tflock", Body=body)


async def unlock(aws: LocalAws, environment: str) -> None:
    bucket = f"lablink-state-{ACCOUNT}-{REGION}-{environment}"
    await aws.ask("s3", "delete_object", Bucket=bucket, Key="allocator/terraform.tfstate.tflock")


async def keep_and_take_in_again(deployer: Deployer, aws: LocalAws) -> None:
    """A destroy leaves the backups and the keys; the next plan takes both in; they end when that is asked for."""
    status, said = await deployer.deploy("destroy", "dev", typed="destroy dev\n")
    assert (status, "  = aws_s3_bucket.backup" in said) == (0, True), said
    held = await aws.ask("s3", "get_object", Bucket=bucket_of("dev"), Key=BACKUP)
    assert held["Body"].read() == b"precious"
    assert all(
        (await aws.ask("s3", "get_public_access_block", Bucket=bucket_of("dev")))[
            "PublicAccessBlockConfiguration"
        ].values()
    )
    plan = await deployer.plan("dev")
    taken_in = [each["address"] for each in plan["resource_changes"] if each["change"].get("importing")]
    assert sorted(taken_in) == ["aws_s3_bucket.backup", "aws_secretsmanager_secret.server"]
    status, said = await deployer.deploy("destroy", "dev", "--with-backups", "--confirm", "destroy dev")
    assert (status, "  - aws_s3_bucket.backup" in said) == (0, True), said


async def take_away(deployer: Deployer, environment: str) -> None:
    if environment == "test":
        status, said = await deployer.make("destroy", environment, CONFIRM="destroy test", ARGS="--with-backups")
    else:
        status, said = await deployer.deploy("destroy", environment, "--with-backups", "--yes")
    assert (status, f"{environment} is gone." in said) == (0, True), said


def what_is_left(aws: LocalAws) -> list[str]:
    """The names of all that there still is."""
    ec2, iam = aws.client("ec2"), aws.client("iam")
    return sorted(
        [
            *aws.list_instances(),
            *(each["AllocationId"] for each in ec2.describe_addresses()["Addresses"]),
            *(each["VolumeId"] for each in ec2.describe_volumes()["Volumes"]),
            *(e["GroupName"] for e in ec2.describe_security_groups()["SecurityGroups"] if e["GroupName"] != "default"),
            *(each["RoleName"] for each in iam.list_roles()["Roles"]),
            *(each["InstanceProfileName"] for each in iam.list_instance_profiles()["InstanceProfiles"]),
            *(each["PolicyName"] for each in iam.list_policies(Scope="Local")["Policies"]),
            *(each["Name"] for each in aws.client("secretsmanager").list_secrets()["SecretList"]),
            *(
                e["Name"]
                for e in aws.client("ssm").get_parameters_by_path(Path="/lablink", Recursive=True)["Parameters"]
            ),
            *(each["Name"] for each in aws.client("s3").list_buckets()["Buckets"]),
        ]
    )
