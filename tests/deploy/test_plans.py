"""What the plans of the server's host may and may not hold, and what its role may and may not do."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from botocore.session import get_session

from tests.deploy.iam import Policy
from tests.deploy.test_environments import DEPLOYER_POLICY
from tests.deploy.world import Deployer
from tests.harness.local_aws import LocalAws
from tests.harness.plan_policy import NO_NARROWER, PUBLIC_PORTS, list_offences

EC2 = "arn:aws:ec2:us-east-1:123456789012"
IAM = "arn:aws:iam::123456789012"
OURS = {
    "aws__RequestTag__ManagedBy": "lablink",
    "aws__RequestTag__Environment": "dev",
    "ec2__MetadataHttpTokens": "required",
}
POOLS = {"aws__ResourceTag__ManagedBy": "lablink", "aws__ResourceTag__Environment": "dev"}
BOUNDARY = {"iam__PermissionsBoundary": f"{IAM}:policy/lablink-vm-boundary-dev"}
TO_EC2 = {"iam__PassedToService": "ec2.amazonaws.com"}


@pytest.fixture(scope="module")
async def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A plan with all that there can be, a name and RDS; with Postgres on the host there is less of the same."""
    aws = await LocalAws(tmp_path_factory.mktemp("aws")).start()
    deployer = Deployer(aws, tmp_path_factory.mktemp("home"))
    try:
        zone = aws.client("route53").create_hosted_zone(Name="example.org", CallerReference="1")["HostedZone"]["Id"]
        return await deployer.plan("dev", "database=rds", f"zone_id={zone.rpartition('/')[2]}")
    finally:
        aws.close()


def find(plan: dict[str, Any], address: str) -> dict[str, Any]:
    """The values of a resource, to be looked at or changed."""
    resources = plan["planned_values"]["root_module"]["resources"]
    values: dict[str, Any] = next(each["values"] for each in resources if each["address"] == address)
    return values


def server_role(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(find(plan, f"aws_iam_role_policy.{name}")["policy"]) for name in ("host", "pools")]


def test_the_plan_keeps_the_policy(plan) -> None:
    assert list_offences(plan, public_ports=PUBLIC_PORTS) == []


def open_ssh(plan: dict[str, Any]) -> None:
    find(plan, "aws_security_group.server")["ingress"][0].update(from_port=22, to_port=22)


def open_database(plan: dict[str, Any]) -> None:
    find(plan, "aws_security_group.database[0]")["ingress"][0].update(cidr_blocks=["10.0.0.0/8"])


def open_postgres(plan: dict[str, Any]) -> None:
    find(plan, "aws_security_group.server")["ingress"][0].update(from_port=5432, to_port=5432)


def widen_role(plan: dict[str, Any]) -> None:
    policy = find(plan, "aws_iam_role_policy.pools")
    policy["policy"] = policy["policy"].replace("ec2:TerminateInstances", "ec2:*")


def widen_resources(plan: dict[str, Any]) -> None:
    policy = find(plan, "aws_iam_role_policy.host")
    said = json.loads(policy["policy"])
    next(each for each in said["Statement"] if each["Sid"] == "OwnSecret")["Resource"] = "*"
    policy["policy"] = json.dumps(said)


@pytest.mark.parametrize(
    ("loosen", "said"),
    [
        (open_ssh, "opens ports 22 to 22 to the whole internet"),
        (open_postgres, "opens Postgres's port 5432"),
        (open_database, "opens Postgres's port 5432"),
        (
            lambda plan: find(plan, "aws_instance.server")["metadata_options"][0].update(http_tokens="optional"),
            "IMDSv2",
        ),
        (
            lambda plan: find(plan, "aws_instance.server")["root_block_device"][0].update(encrypted=False),
            "not encrypted",
        ),
        (
            lambda plan: find(plan, "aws_s3_bucket_public_access_block.backup").update(block_public_policy=False),
            "does not block all public access",
        ),
        (lambda plan: find(plan, "aws_db_instance.server[0]").update(storage_encrypted=False), "is not encrypted"),
        (lambda plan: find(plan, "aws_db_instance.server[0]").update(publicly_accessible=True), "from the internet"),
        (widen_role, "allows ec2:*"),
        (widen_resources, "allows secretsmanager:GetSecretValue on every resource"),
    ],
)
def test_who_loosens_a_plan_is_told(plan, loosen: Callable[[dict[str, Any]], object], said: str) -> None:
    loosened = deepcopy(plan)
    loosen(loosened)
    assert any(said in offence for offence in list_offences(loosened, public_ports=PUBLIC_PORTS))


def test_every_bucket_is_versioned_encrypted_private_and_closed_to_open_connections(plan) -> None:
    addresses = {each["address"] for each in plan["planned_values"]["root_module"]["resources"]}
    for bucket in (address for address in addresses if address.startswith("aws_s3_bucket.")):
        name = bucket.partition(".")[2]
        kinds = ("versioning", "server_side_encryption_configuration", "public_access_block", "policy")
        assert {f"aws_s3_bucket_{kind}.{name}" for kind in kinds} <= addresses
    assert find(plan, "aws_s3_bucket_versioning.backup")["versioning_configuration"][0]["status"] == "Enabled"
    assert json.loads(find(plan, "aws_s3_bucket_policy.backup")["policy"])["Statement"][0]["Effect"] == "Deny"


def test_no_password_of_the_database_is_in_a_plan(plan) -> None:
    values = find(plan, "aws_db_instance.server[0]")
    assert not values.get("password")
    assert not values.get("password_wo")
    assert not find(plan, "aws_secretsmanager_secret_version.database[0]").get("secret_string")


def test_the_name_is_where_the_zone_is_given(plan) -> None:
    assert find(plan, "aws_route53_record.server[0]")["name"] == "lab.example.org"


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        ("ec2:RunInstances", f"{EC2}:instance/*", OURS),
        ("ec2:RunInstances", f"{EC2}:volume/*", {"ec2__Encrypted": "true"}),
        ("ec2:RunInstances", f"{EC2}:security-group/sg-1", POOLS),
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", POOLS),
        ("ec2:CreateSecurityGroup", f"{EC2}:security-group/*", OURS),
        ("ec2:CreateTags", f"{EC2}:instance/i-1", {"ec2__CreateAction": "RunInstances"}),
        ("ec2:ImportKeyPair", f"{EC2}:key-pair/lablink-lab-dev", {}),
        ("iam:CreateRole", f"{IAM}:role/lablink-lab-dev", BOUNDARY),
        ("iam:PassRole", f"{IAM}:role/lablink-lab-dev", TO_EC2),
        ("ssm:GetParameter", "arn:aws:ssm:us-east-1::parameter/aws/service/debian/release/12/latest/amd64", {}),
        (
            "secretsmanager:GetSecretValue",
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:lablink-allocator-dev-AbCdEf",
            {},
        ),
        ("s3:PutObject", "arn:aws:s3:::lablink-backup-123456789012-us-east-1-dev/x/database.dump", {}),
    ],
)
def test_the_server_may(plan, action: str, resource: str, context: dict[str, str]) -> None:
    assert Policy(*server_role(plan)).allows(action, resource, **context)


@pytest.mark.parametrize(
    ("action", "resource", "context"),
    [
        # A machine without the pool's tags, with IMDSv1, or with an open disk.
        ("ec2:RunInstances", f"{EC2}:instance/*", {**OURS, "aws__RequestTag__Environment": "prod"}),
        ("ec2:RunInstances", f"{EC2}:instance/*", {**OURS, "ec2__MetadataHttpTokens": "optional"}),
        ("ec2:RunInstances", f"{EC2}:volume/*", {"ec2__Encrypted": "false"}),
        # Itself, somebody else's machine, another environment's.
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {"aws__ResourceTag__ManagedBy": "lablink-deploy"}),
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {}),
        ("ec2:TerminateInstances", f"{EC2}:instance/i-1", {**POOLS, "aws__ResourceTag__Environment": "prod"}),
        # Making somebody else's machine look like one of its own.
        ("ec2:CreateTags", f"{EC2}:instance/i-1", OURS),
        # More rights than it has: a role without bounds, its own role, a role for somebody else.
        ("iam:CreateRole", f"{IAM}:role/lablink-lab-dev", {}),
        ("iam:PutRolePolicy", f"{IAM}:role/lablink-lab-dev", {"iam__PermissionsBoundary": "arn:aws:iam::aws:policy/x"}),
        ("iam:PutRolePolicy", f"{IAM}:role/lablink-allocator-dev", BOUNDARY),
        ("iam:PassRole", f"{IAM}:role/lablink-allocator-dev", TO_EC2),
        ("iam:PassRole", f"{IAM}:role/lablink-lab-dev", {"iam__PassedToService": "lambda.amazonaws.com"}),
        ("iam:PassRole", f"{IAM}:role/admin", TO_EC2),
        (
            "secretsmanager:GetSecretValue",
            "arn:aws:secretsmanager:us-east-1:123456789012:secret:lablink-allocator-prod-AbCdEf",
            {},
        ),
        ("s3:DeleteObject", "arn:aws:s3:::lablink-backup-123456789012-us-east-1-dev/x/database.dump", {}),
        ("ssm:GetParameter", "arn:aws:ssm:us-east-1:123456789012:parameter/other", {}),
    ],
)
def test_the_server_may_not(plan, action: str, resource: str, context: dict[str, str]) -> None:
    assert not Policy(*server_role(plan)).allows(action, resource, **context)


def test_a_role_that_the_server_makes_reaches_session_manager_and_nothing_else(plan) -> None:
    boundary = Policy(json.loads(find(plan, "aws_iam_policy.vm_boundary")["policy"]))
    assert {action.partition(":")[0] for action in boundary.actions()} == {"ssm", "ssmmessages"}


@pytest.mark.parametrize("whose", ["server", "deployer"])
def test_a_policy_names_real_actions_alone_and_fits_into_a_role(plan, whose: str) -> None:
    documents = [json.loads(DEPLOYER_POLICY.read_text())] if whose == "deployer" else server_role(plan)
    policy = Policy(*documents)
    assert [action for action in policy.actions() if not is_real(action)] == []
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: 10,240 characters for a role's own policies.
    assert sum(len(json.dumps(each, separators=(",", ":"))) for each in documents) < 10_240


def test_the_deployers_policy_asks_for_every_resource_only_where_aws_knows_none() -> None:
    policy = Policy(json.loads(DEPLOYER_POLICY.read_text()))
    for statement in policy.statements:
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == "*":
            wide = [action for action in statement["Action"] if not action.startswith("ec2:Describe")]
            assert set(wide) <= NO_NARROWER | {"secretsmanager:GetRandomPassword"}


# Actions that are no operation of their own (service authorization reference), or one of another name.
NO_OPERATIONS = {
    "iam:PassRole",
    "s3:DeleteObjectVersion",
    "s3:GetObjectVersion",
    "s3:GetAccelerateConfiguration",
    "s3:GetBucketCORS",
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
    "s3:GetReplicationConfiguration",
    "s3:ListBucket",
    "s3:ListBucketVersions",
    "s3:PutBucketPublicAccessBlock",
    "s3:PutEncryptionConfiguration",
    "s3:PutLifecycleConfiguration",
    "servicequotas:GetServiceQuota",
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}
MODELS = {"servicequotas": "service-quotas"}


def is_real(action: str) -> bool:
    service, _, name = action.partition(":")
    if action in NO_OPERATIONS:
        return True
    return name in operations_of(MODELS.get(service, service))


@cache
def operations_of(service: str) -> frozenset[str]:
    return frozenset(get_session().get_service_model(service).operation_names)
