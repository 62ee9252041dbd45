"""EC2 beside Terraform: find this server's instances, switch them on and off, take away what nobody knows any more.

Every instance of ours bears the tags of the Terraform module; whatever does not bear all of them is somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from backend.errors import LabLinkError
from backend.provisioning.aws.clients import call_when_refused, make_client
from backend.provisioning.aws.failures import find_failure

ATTEMPTS = 4
# docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html; the others are terminated or about to be.
EXISTING = ("pending", "running", "stopping", "stopped")
_T = TypeVar("_T")


class AwsFailed(LabLinkError):
    """AWS refused, or could not be reached; says what it said."""

    code = "aws_failed"
    status = 503


@dataclass(frozen=True, slots=True)
class Instance:
    """An EC2 instance of this server."""

    id: str
    hostname: str
    state: str


class Ec2:
    """The instances with these tags in one region. Its methods wait for AWS: they belong in threads."""

    def __init__(self, region: str, *, endpoint_url: str | None, tags: Mapping[str, str]) -> None:
        self._region, self._endpoint_url, self._tags = region, endpoint_url, dict(tags)
        self._clients: dict[int, Any] = {}

    def list_instances(self, hostnames: Collection[str] | None = None, *, attempts: int = ATTEMPTS) -> list[Instance]:
        """Those that exist, all or by hostname.

        Raises:
            AwsFailed
        """

        def ask() -> list[Instance]:
            filters = [{"Name": f"tag:{name}", "Values": [value]} for name, value in self._tags.items()]
            filters.append({"Name": "instance-state-name", "Values": list(EXISTING)})
            pages = self._client(attempts).get_paginator("describe_instances").paginate(Filters=filters)
            instances = [each for page in pages for kept in page["Reservations"] for each in kept["Instances"]]
            return [_instance(each) for each in instances if self._is_ours(each)]

        found = _ask(ask)
        return found if hostnames is None else [each for each in found if each.hostname in hostnames]

    def list_zones(self, vpc_id: str | None) -> list[str]:
        """The zones in which a VPC has a subnet; the default one's if None.

        Raises:
            AwsFailed
        """

        def ask() -> list[str]:
            client = self._client()
            default = {"Name": "is-default", "Values": ["true"]}
            ids = [vpc_id] if vpc_id else [each["VpcId"] for each in client.describe_vpcs(Filters=[default])["Vpcs"]]
            pages = client.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": ids}])
            return sorted({each["AvailabilityZone"] for page in pages for each in page["Subnets"]}) if ids else []

        return _ask(ask)

    def reboot(self, hostname: str) -> None:
        """Boots an instance again, or boots one that is off.

        Raises:
            AwsFailed: also when there is none of this name.
        """
        found = self.list_instances([hostname])
        if not found:
            raise AwsFailed(f"There is no instance {hostname} in {self._region}.")
        ids = [each.id for each in found if each.state == "running"]
        if ids:
            _ask(lambda: self._client().reboot_instances(InstanceIds=ids))
        else:
            self.start([hostname])

    def start(self, hostnames: Collection[str]) -> None:
        """Switches on those that are off.

        Raises:
            AwsFailed
        """
        self._on_each(hostnames, {"stopped", "stopping"}, "start_instances")

    def stop(self, hostnames: Collection[str]) -> None:
        """Switches off those that run.

        Raises:
            AwsFailed
        """
        self._on_each(hostnames, {"pending", "running"}, "stop_instances")

    def terminate(self, hostnames: Collection[str]) -> list[str]:
        """Takes instances away for good, with their root volumes; returns the hostnames there were.

        Raises:
            AwsFailed
        """
        return self._on_each(hostnames, set(EXISTING), "terminate_instances")

    def _on_each(self, hostnames: Collection[str], states: Collection[str], call: str) -> list[str]:
        found = [each for each in self.list_instances(hostnames) if each.state in states] if hostnames else []
        if found:
            _ask(lambda: getattr(self._client(), call)(InstanceIds=[each.id for each in found]))
        return sorted(each.hostname for each in found)

    def _is_ours(self, said: Mapping[str, Any]) -> bool:
        """Exactly: a filter of EC2 takes * and ? for wildcards."""
        tags = _tags(said)
        return "Name" in tags and all(tags.get(name) == value for name, value in self._tags.items())

    def _client(self, attempts: int = ATTEMPTS) -> Any:
        """Kept, since making one takes a while; threads may share it."""
        if attempts not in self._clients:
            retries = {"mode": "standard", "total_max_attempts": attempts}
            config = Config(connect_timeout=5, read_timeout=20, retries=retries)
            made = make_client("ec2", self._region, endpoint_url=self._endpoint_url, config=config)
            call_when_refused(made, self._clients.clear)
            self._clients[attempts] = made
            return made
        return self._clients[attempts]


def _ask(call: Callable[[], _T]) -> _T:
    try:
        return call()
    except (ClientError, BotoCoreError) as exc:
        raise AwsFailed(str(find_failure(str(exc)) or f"AWS: {exc}")) from exc


def _instance(said: Mapping[str, Any]) -> Instance:
    return Instance(said["InstanceId"], _tags(said)["Name"], said["State"]["Name"])


def _tags(said: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in said.get("Tags", [])}
