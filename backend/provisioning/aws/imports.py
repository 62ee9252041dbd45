"""What the VMs of a pool on AWS share, as ``terraform/aws`` names it: to be taken into a new state. Waits for AWS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from backend.provisioning.aws.clients import AwsClients, error_code
from backend.services.views import PoolView

_ABSENT = ("NoSuchEntity", "InvalidGroup.NotFound", "InvalidKeyPair.NotFound")


def find_shared(clients: AwsClients, tags: Mapping[str, str], pool: PoolView) -> dict[str, str]:
    """Ids by address, of what exists and bears this server's tags; the rest is made by the next launch."""
    name = f"lablink-{pool.name}-{tags['Environment']}"
    ec2, iam = clients.get("ec2"), clients.get("iam")
    found: dict[str, str] = {}

    def groups() -> list[Mapping[str, Any]]:
        listed: list[Mapping[str, Any]] = ec2.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": [name]}]
        )["SecurityGroups"]
        return listed

    for group in _find(groups) or []:
        if _is_ours(group, tags):
            found["aws_security_group.pool[0]"] = group["GroupId"]
    role = _find(lambda: iam.get_role(RoleName=name)["Role"])
    if role and _is_ours(role, tags):
        found["aws_iam_role.pool[0]"] = name
        if _find(lambda: iam.get_role_policy(RoleName=name, PolicyName="session-manager")):
            found["aws_iam_role_policy.pool[0]"] = f"{name}:session-manager"
    profile = _find(lambda: iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"])
    if profile and _is_ours(profile, tags):
        found["aws_iam_instance_profile.pool[0]"] = name
    if pool.aws.ssh_key:
        for key in _find(lambda: ec2.describe_key_pairs(KeyNames=[name])["KeyPairs"]) or []:
            if _is_ours(key, tags):
                found["aws_key_pair.pool[0]"] = name
    return found


def _find(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ClientError as exc:
        if error_code(exc) in _ABSENT:
            return None
        raise


def _is_ours(thing: Mapping[str, Any], tags: Mapping[str, str]) -> bool:
    borne = {each["Key"]: each["Value"] for each in thing.get("Tags", [])}
    return all(borne.get(name) == value for name, value in tags.items())
