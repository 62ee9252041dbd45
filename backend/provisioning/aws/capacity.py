"""Whether AWS has room for a launch: the type in the zones, the AMI, addresses in the subnets, vCPUs in the quota."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from backend.provisioning.aws.clients import AwsClients
from backend.provisioning.aws.quotas import Quota, find_quota
from backend.provisioning.checks import Check, ok, problem, warning
from backend.services.aws_spec import AwsSpec, Placement

TYPE, AMI, ADDRESSES, QUOTA = "Instance type", "AMI", "Subnet addresses", "vCPU quota"
_NO_IMAGE = {"InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable", "ParameterNotFound"}


class Places:
    """What a pool's specification means in its region now. Each fact is asked for once."""

    def __init__(self, clients: AwsClients, spec: AwsSpec) -> None:
        self._clients, self._spec = clients, spec
        self._asking = threading.RLock()

    @property
    def image(self) -> Mapping[str, Any]:
        """The AMI that the pool names now."""
        with self._asking:
            return self._image

    @property
    def subnets(self) -> Sequence[Mapping[str, Any]]:
        """The subnets of the pool's VPC in the order of their ids, as the module sorts them."""
        with self._asking:
            return self._subnets

    @property
    def first(self) -> tuple[Placement, list[Mapping[str, Any]]]:
        """The preferred placement, and where it may be."""
        placement = self._spec.list_placements()[0]
        return placement, self.list_subnets(placement)

    def list_subnets(self, placement: Placement) -> list[Mapping[str, Any]]:
        """Where a placement may be."""
        if placement.subnet_id:
            return [each for each in self.subnets if each["SubnetId"] == placement.subnet_id]
        if placement.zone:
            return [each for each in self.subnets if each["AvailabilityZone"] == placement.zone]
        return list(self.subnets)

    @cached_property
    def _image(self) -> Mapping[str, Any]:
        name = self._spec.ami
        if name.startswith("/"):
            name = self._clients.get("ssm").get_parameter(Name=name)["Parameter"]["Value"]
        images: list[Mapping[str, Any]] = self._clients.get("ec2").describe_images(ImageIds=[name])["Images"]
        return images[0] if images else {"ImageId": name, "State": "missing"}

    @cached_property
    def _subnets(self) -> Sequence[Mapping[str, Any]]:
        ec2, vpc = self._clients.get("ec2"), self._spec.vpc_id
        if vpc is None:
            found = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
            if not found:
                return []
            vpc = found[0]["VpcId"]
        pages = ec2.get_paginator("describe_subnets").paginate(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        subnets = [each for page in pages for each in page["Subnets"]]
        return sorted(subnets, key=lambda each: str(each["SubnetId"]))


class Capacity:
    """The checks of one launch."""

    def __init__(self, clients: AwsClients, spec: AwsSpec, places: Places, count: int) -> None:
        self._clients, self._spec, self._places, self._count = clients, spec, places, count

    @property
    def checks(self) -> dict[str, Callable[[], Check]]:
        """Each check by the name of its line."""
        return {
            TYPE: self._check_type,
            AMI: self._check_ami,
            ADDRESSES: self._check_addresses,
            QUOTA: self._check_quota,
        }

    def _check_type(self) -> Check:
        zones = {each: self._list_zones(each) for each in self._spec.instance_types}
        wanted = {subnet["AvailabilityZone"] for each in self._spec.list_placements()
                  for subnet in self._places.list_subnets(each)}  # fmt: skip
        nowhere = [each for each, found in zones.items() if not found & wanted]
        first, elsewhere = self._spec.instance_types[0], sorted(set.union(*zones.values()) - wanted)
        remedy = "Choose another type or other zones in the pool" + (
            f"; this region offers it in {', '.join(elsewhere)}." if elsewhere else ", or another region."
        )
        if len(nowhere) == len(zones):
            where = f"in {', '.join(sorted(wanted))}" if wanted else "where the pool has subnets"
            return problem(TYPE, f"{' and '.join(nowhere)} cannot be had {where}.", remedy)
        if nowhere:
            return warning(TYPE, f"{' and '.join(nowhere)} cannot be had in the pool's zones; the others can.", remedy)
        return ok(TYPE, f"{first} is offered in {', '.join(sorted(zones[first] & wanted))}.")

    def _list_zones(self, instance_type: str) -> set[str]:
        pages = (
            self._clients.get("ec2")
            .get_paginator("describe_instance_type_offerings")
            .paginate(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}])
        )
        return {each["Location"] for page in pages for each in page["InstanceTypeOfferings"]}

    def _check_ami(self) -> Check:
        named, elsewhere = (
            self._spec.ami,
            "Name one that this account may use in this region, in the pool's specification.",
        )
        try:
            image = self._places.image
        except ClientError as exc:
            if exc.response["Error"].get("Code") not in _NO_IMAGE:
                raise
            return problem(AMI, f"There is no {named} in {self._clients.region}.", elsewhere)
        state = image.get("State", "available")
        if state != "available":
            return problem(AMI, f"{image['ImageId']} is {state} in {self._clients.region}.", elsewhere)
        disks = [each.get("Ebs", {}).get("VolumeSize", 0) for each in image.get("BlockDeviceMappings", [])]
        if disks and disks[0] > self._spec.volume_gb:
            remedy = f"Make the pool's volume {disks[0]} GB or larger."
            return problem(
                AMI, f"{image['ImageId']} needs {disks[0]} GB; the volume has {self._spec.volume_gb}.", remedy
            )
        return ok(AMI, f"{image['ImageId']} is there: {image.get('Name') or 'without a name'}.")

    def _check_addresses(self) -> Check:
        places = {each["SubnetId"]: each for placement in self._spec.list_placements()
                  for each in self._places.list_subnets(placement)}  # fmt: skip
        if not places:
            remedy = "Name a VPC and zones that have subnets, in the pool's specification."
            return problem(ADDRESSES, "The pool has no subnet: none is where it may be.", remedy)
        _, (first, *_) = self._places.first if self._places.first[1] else (None, list(places.values()))
        free = {name: int(each["AvailableIpAddressCount"]) for name, each in places.items()}
        remedy = "Launch fewer, or give the pool larger or more subnets."
        if sum(free.values()) < self._count:
            return problem(ADDRESSES, f"{sum(free.values())} addresses are free; {self._count} are needed.", remedy)
        here = free[first["SubnetId"]]
        if here < self._count:
            sentence = f"{first['SubnetId']}, where they go first, has {here} free addresses for {self._count}."
            return warning(ADDRESSES, sentence, remedy)
        return ok(ADDRESSES, f"{first['SubnetId']} in {first['AvailabilityZone']} has {here:,} free addresses.")

    def _check_quota(self) -> Check:
        """The first type counts; a later one that has room makes a warning of its problem."""
        found = [self._check_quota_of(each) for each in self._spec.instance_types]
        first, others = found[0], found[1:]
        spare = next((each for each in others if each.status == "ok"), None)
        if first.status == "problem" and spare is not None:
            return warning(QUOTA, f"{first.sentence} {spare.sentence}", first.remedy)
        return first

    def _check_quota_of(self, instance_type: str) -> Check:
        quota = find_quota(instance_type, spot=self._spec.spot)
        if quota is None:
            remedy = "Look at Service Quotas, Amazon EC2, in AWS's console."
            return warning(QUOTA, f"Which quota {instance_type} counts against is not known here.", remedy)
        answer = self._clients.get("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=quota.code)
        limit, used = int(answer["Quota"]["Value"]), self._count_used(quota)
        each = self._count_vcpus([instance_type])[instance_type]
        asked, left = each * self._count, max(0, limit - used)
        sentence = f"{self._count} × {instance_type} take {asked} vCPUs; {used} of {limit} run."
        if asked <= left:
            return ok(QUOTA, sentence)
        return problem(
            QUOTA, sentence, f"Launch at most {left // each}, or ask AWS for more: {quota.name} ({quota.code})."
        )

    def _count_used(self, quota: Quota) -> int:
        """The vCPUs of everything that runs in the account and counts against this quota, whoever made it."""
        running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
        pages = self._clients.get("ec2").get_paginator("describe_instances").paginate(Filters=running)
        instances = [each for page in pages for one in page["Reservations"] for each in one["Instances"]]
        types = [each["InstanceType"] for each in instances if _quota_of(each) == quota]
        vcpus = self._count_vcpus(sorted(set(types)))
        return sum(vcpus[each] for each in types)

    def _count_vcpus(self, types: Sequence[str]) -> dict[str, int]:
        counted: dict[str, int] = {}
        for start in range(0, len(types), 100):
            answer = self._clients.get("ec2").describe_instance_types(InstanceTypes=list(types[start : start + 100]))
            counted |= {each["InstanceType"]: each["VCpuInfo"]["DefaultVCpus"] for each in answer["InstanceTypes"]}
        return counted


def _quota_of(instance: Mapping[str, Any]) -> Quota | None:
    return find_quota(instance["InstanceType"], spot=instance.get("InstanceLifecycle") == "spot")
