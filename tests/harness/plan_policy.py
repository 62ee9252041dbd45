"""What no plan of ours may do, read off a plan's JSON (``terraform show -json``): the policy of every AWS module.

Each rule is a function from a resource to its offences. A resource is what the plan says about one thing that shall
exist afterwards: its type, its address and its values.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

PUBLIC_PORTS = frozenset({80, 443})
# Actions for which AWS offers no narrower resource than "*" (service authorization reference, "Resource types" empty).
NO_NARROWER = frozenset(
    {
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
        "pricing:GetProducts",
        "servicequotas:ListServiceQuotas",
        "sts:GetCallerIdentity",
    }
)
NO_NARROWER_PREFIXES = ("ec2:Describe",)


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing that shall exist after the plan. What is only known later is missing from ``values``."""

    address: str
    type: str
    values: Mapping[str, Any]


def list_offences(plan: Mapping[str, Any], *, public_ports: frozenset[int] = frozenset()) -> list[str]:
    """Every offence of a plan against the policy, as ``address: sentence``.

    ``public_ports``: what may be reached from anywhere (a server: ``PUBLIC_PORTS``; machines of a pool: nothing).
    """
    offences = []
    for resource in _resources(plan):
        offences += [f"{resource.address}: {said}" for said in _check(resource, public_ports)]
    return offences


def _check(resource: Resource, public_ports: frozenset[int]) -> Iterator[str]:
    yield from _check_ingress(resource, public_ports)
    yield from _check_instance(resource)
    yield from _check_storage(resource)
    yield from _check_policies(resource)
    yield from _check_user_data(resource)


def _check_ingress(resource: Resource, public_ports: frozenset[int]) -> Iterator[str]:
    for rule in _ingress_rules(resource):
        first, last = rule["from_port"], rule["to_port"]
        first, last = (0, 65_535) if str(rule["protocol"]) in {"-1", "all"} or first is None else (first, last)
        # From another group it is a database that knows its server; from an address it is anybody.
        if first <= 5432 <= last and rule["cidrs"]:
            yield "opens Postgres's port 5432"
        for cidr in rule["cidrs"]:
            if ip_network(cidr, strict=False).prefixlen == 0 and not set(range(first, last + 1)) <= public_ports:
                yield f"opens ports {first} to {last} to the whole internet"


def _ingress_rules(resource: Resource) -> Iterator[dict[str, Any]]:
    values = resource.values
    if resource.type in {"aws_security_group", "aws_default_security_group"}:
        for rule in values.get("ingress") or []:
            yield {**rule, "cidrs": [*(rule.get("cidr_blocks") or []), *(rule.get("ipv6_cidr_blocks") or [])]}
    elif resource.type == "aws_security_group_rule" and values.get("type") == "ingress":
        yield {**values, "cidrs": [*(values.get("cidr_blocks") or []), *(values.get("ipv6_cidr_blocks") or [])]}
    elif resource.type == "aws_vpc_security_group_ingress_rule":
        cidrs = [cidr for cidr in (values.get("cidr_ipv4"), values.get("cidr_ipv6")) if cidr]
        yield {
            "protocol": values["ip_protocol"],
            "from_port": values.get("from_port"),
            "to_port": values.get("to_port"),
            "cidrs": cidrs,
        }


def _check_instance(resource: Resource) -> Iterator[str]:
    if resource.type not in {"aws_instance", "aws_launch_template"}:
        return
    options = (resource.values.get("metadata_options") or [{}])[0]
    if options.get("http_tokens") != "required":
        yield "does not require IMDSv2"
    if options.get("http_put_response_hop_limit") != 1:
        yield "lets containers reach the metadata service (hop limit above 1)"
    if resource.type == "aws_instance":
        for name in ("root_block_device", "ebs_block_device"):
            disks = resource.values.get(name) or []
            if name == "root_block_device" and not disks:
                yield "says nothing about its root volume"
            for disk in disks:
                if disk.get("encrypted") is not True:
                    yield f"has a {name} that is not encrypted"
                if disk.get("volume_type") != "gp3":
                    yield f"has a {name} that is not gp3"


def _check_storage(resource: Resource) -> Iterator[str]:
    values = resource.values
    if resource.type == "aws_ebs_volume" and values.get("encrypted") is not True:
        yield "is not encrypted"
    if resource.type == "aws_db_instance":
        if values.get("storage_encrypted") is not True:
            yield "is not encrypted"
        if values.get("publicly_accessible"):
            yield "can be reached from the internet"
    if resource.type == "aws_s3_bucket_public_access_block" and not all(
        values.get(name)
        for name in ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
    ):
        yield "does not block all public access"


_POLICIES = {
    "aws_iam_policy": ("policy",),
    "aws_iam_role_policy": ("policy",),
    "aws_iam_user_policy": ("policy",),
    "aws_iam_group_policy": ("policy",),
    "aws_iam_role": ("assume_role_policy",),
}
_ATTACHMENTS = frozenset(
    {"aws_iam_role_policy_attachment", "aws_iam_policy_attachment", "aws_iam_user_policy_attachment"}
)


def _check_policies(resource: Resource) -> Iterator[str]:
    if resource.type in _ATTACHMENTS and ":iam::aws:policy/" in str(resource.values.get("policy_arn", "")):
        yield f"attaches AWS's own {resource.values['policy_arn']}, which allows more than is needed"
    if resource.type == "aws_iam_role" and resource.values.get("managed_policy_arns"):
        yield "has managed policies, which allow more than is needed"
    for name in _POLICIES.get(resource.type, ()):
        text = resource.values.get(name)
        if text is None:
            yield f"has a {name} that is not known before it is applied, and cannot be judged"
            continue
        for statement in _listed(json.loads(text)["Statement"]):
            yield from _check_statement(statement)


def _check_statement(statement: Mapping[str, Any]) -> Iterator[str]:
    if statement["Effect"] != "Allow":
        return
    if "NotAction" in statement or "NotResource" in statement:
        yield "allows all but a list"
    actions, resources = _listed(statement.get("Action", [])), _listed(statement.get("Resource", []))
    for action in actions:
        if "*" in action:
            yield f"allows {action}"
        elif "*" in resources and not _has_no_narrower(action):
            yield f"allows {action} on every resource"
    principal = statement.get("Principal")
    if principal == "*" or (isinstance(principal, dict) and "*" in _listed(principal.get("AWS", []))):
        yield "trusts everybody"


def _has_no_narrower(action: str) -> bool:
    return action in NO_NARROWER or action.startswith(NO_NARROWER_PREFIXES)


def _check_user_data(resource: Resource) -> Iterator[str]:
    if resource.type == "aws_instance" and len((resource.values.get("user_data") or "").encode()) >= 16_384:
        yield "has a user_data of 16 kB or more"


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _resources(plan: Mapping[str, Any]) -> Iterator[Resource]:
    modules = [plan["planned_values"].get("root_module", {})]
    while modules:
        module = modules.pop()
        modules += module.get("child_modules", [])
        for each in module.get("resources", []):
            if each["mode"] == "managed":
                yield Resource(each["address"], each["type"], each.get("values", {}))
