"""EC2 instances as machines of ours, or of somebody else. Waits for AWS."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from botocore.exceptions import ClientError

from backend.provisioning.aws.clients import AwsClients, error_code
from backend.provisioning.aws.ec2 import EXISTING
from backend.provisioning.machines import Machine

_OFF = ("stopping", "stopped")


def list_machines(clients: AwsClients, tags: Mapping[str, str], ids: Collection[str] = ()) -> list[Machine]:
    """The instances that exist and bear all of these tags, exactly; and those with these ids, whatever they bear."""
    filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in tags.items()]
    found = {each["InstanceId"]: each for each in _describe(clients, Filters=filters)}
    for machine_id in set(ids) - set(found):
        try:
            found |= {each["InstanceId"]: each for each in _describe(clients, InstanceIds=[machine_id])}
        except ClientError as exc:
            # Terminated ones are forgotten by EC2 after an hour.
            if not error_code(exc).startswith("InvalidInstanceID"):
                raise
    machines = [_machine(each, tags) for each in found.values() if each["State"]["Name"] in EXISTING]
    return [each for each in machines if each.is_ours or each.id in ids]


def _describe(clients: AwsClients, **which: Any) -> list[Mapping[str, Any]]:
    pages = clients.get("ec2").get_paginator("describe_instances").paginate(**which)
    return [each for page in pages for one in page["Reservations"] for each in one["Instances"]]


def _machine(instance: Mapping[str, Any], wanted: Mapping[str, str]) -> Machine:
    tags = {each["Key"]: each["Value"] for each in instance.get("Tags", [])}
    return Machine(
        id=instance["InstanceId"],
        hostname=tags.get("Name", ""),
        pool=tags.get("Pool", ""),
        # A filter of EC2 takes * and ? for wildcards.
        is_ours="Name" in tags and all(tags.get(name) == value for name, value in wanted.items()),
        is_off=instance["State"]["Name"] in _OFF,
        kind=instance["InstanceType"],
        image=instance["ImageId"],
        started_at=instance["LaunchTime"].isoformat(),
        tags={name: value for name, value in tags.items() if not name.startswith("aws:")},
    )
