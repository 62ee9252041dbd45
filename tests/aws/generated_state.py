"""A Terraform state of a pool of any size, as if its machines had been made: plans need no 200 instances."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from backend.provisioning.runner import TerraformRunner, write_private
from backend.provisioning.state_files import STATE

_PROVIDER = 'provider["registry.terraform.io/hashicorp/aws"]'
_BUILT_IN = 'provider["terraform.io/builtin/terraform"]'
AMI = "ami-0123456789abcdef0"


def generate_state(runner: TerraformRunner, tfvars: dict[str, Any], hostnames: Sequence[str], *, vpc_id: str) -> None:
    """Writes the state that a launch of these machines with these variables would have left behind."""
    name = f"lablink-{tfvars['pool']}-{tfvars['environment']}"
    tags = {
        "ManagedBy": "lablink",
        "Server": tfvars["server"],
        "Owner": tfvars["owner"],
        "Pool": tfvars["pool"],
        "Environment": tfvars["environment"],
        "Cost": tfvars["cost"],
    }
    what = f"LabLink VMs of pool {tfvars['pool']} ({tfvars['environment']})"
    resources = [
        _resource("terraform_data", "ami", [(0, _ami(tfvars["ami"]))], provider=_BUILT_IN),
        _resource("aws_security_group", "pool", [(0, _group(name, what, tags, vpc_id))], schema=1),
        _resource("aws_iam_role", "pool", [(0, _role(name, what, tags))]),
        _resource("aws_iam_role_policy", "pool", [(0, _role_policy(name))]),
        _resource("aws_iam_instance_profile", "pool", [(0, _profile(name, tags))]),
        _resource(
            "aws_instance",
            "vm",
            [(each, _instance(number, each, name, tags)) for number, each in enumerate(hostnames)],
            schema=1,
        ),
    ]
    state = {
        "version": 4,
        "terraform_version": "1.11.4",
        "serial": 1,
        "lineage": "generated",
        "outputs": {},
        "resources": resources,
    }
    write_private(runner.directory / STATE, json.dumps(state))


def _resource(
    kind: str,
    name: str,
    instances: list[tuple[int | str, dict[str, Any]]],
    *,
    schema: int = 0,
    provider: str = _PROVIDER,
) -> dict[str, Any]:
    return {
        "mode": "managed",
        "type": kind,
        "name": name,
        "provider": provider,
        "instances": [
            {"index_key": key, "schema_version": schema, "attributes": attributes, "sensitive_attributes": []}
            for key, attributes in instances
        ],
    }


def _ami(parameter: str) -> dict[str, Any]:
    # triggers_replace may be of any type, so the state says which.
    triggers = {"value": [parameter], "type": ["tuple", ["string"]]}
    ami = {"value": AMI, "type": "string"}
    return {"id": "generated", "input": ami, "output": ami, "triggers_replace": triggers}


def _group(name: str, what: str, tags: dict[str, str], vpc_id: str) -> dict[str, Any]:
    egress = {
        "description": "The server, the registries, the repositories",
        "protocol": "-1",
        "from_port": 0,
        "to_port": 0,
        "cidr_blocks": ["0.0.0.0/0"],
        "ipv6_cidr_blocks": ["::/0"],
        "prefix_list_ids": [],
        "security_groups": [],
        "self": False,
    }
    named = {**tags, "Name": name}
    return {
        "id": "sg-0123456789abcdef0",
        "name": name,
        "description": what,
        "vpc_id": vpc_id,
        "tags": named,
        "tags_all": named,
        "ingress": [],
        "egress": [egress],
        "revoke_rules_on_delete": False,
    }


def _role(name: str, what: str, tags: dict[str, str]) -> dict[str, Any]:
    statement = {"Action": "sts:AssumeRole", "Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    fixed = {"force_detach_policies": False, "max_session_duration": 3600, "path": "/", "managed_policy_arns": []}
    return {
        "id": name,
        "name": name,
        "description": what,
        "tags": tags,
        "tags_all": tags,
        "assume_role_policy": policy,
        **fixed,
    }


def _role_policy(name: str) -> dict[str, Any]:
    channels = [f"ssmmessages:{verb}{kind}Channel" for verb in ("Create", "Open") for kind in ("Control", "Data")]
    instances = "arn:aws:ec2:us-east-1:123456789012:instance/*"
    statements = [
        {"Sid": "Register", "Effect": "Allow", "Action": "ssm:UpdateInstanceInformation", "Resource": instances},
        {"Sid": "Channels", "Effect": "Allow", "Action": sorted(channels, reverse=True), "Resource": "*"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    return {"id": f"{name}:session-manager", "name": "session-manager", "role": name, "policy": policy}


def _profile(name: str, tags: dict[str, str]) -> dict[str, Any]:
    return {"id": name, "name": name, "role": name, "path": "/", "tags": tags, "tags_all": tags}


def _instance(number: int, hostname: str, profile: str, tags: dict[str, str]) -> dict[str, Any]:
    named = {**tags, "Name": hostname}
    return {
        "id": f"i-{number:017x}",
        "ami": AMI,
        "instance_type": "g4dn.xlarge",
        "subnet_id": "subnet-0123456789abcdef0",
        "iam_instance_profile": profile,
        "tags": named,
        "tags_all": named,
        "user_data": "0123456789abcdef0123456789abcdef01234567",
    }
