"""What a pool on AWS is made of, as fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

from backend.services.aws_spec import VOLUME_GB, AwsSpec
from lablink_ui.parts import Field, tag

_FIRST = "The preferred one first; the next is for when AWS has no capacity"


class AwsFields:
    """The fields of an ``AwsSpec``, in a section of their own. What runs already keeps what it was made with."""

    def __init__(self, spec: AwsSpec) -> None:
        with tag("section", "stack", aria_label="On AWS") as self.section:
            tag("h3", "", "On AWS")
            with tag("div", "fields"):
                self.instance_types = _list("Instance types", "instance_types", spec.instance_types, hint=_FIRST)
                self.zones = _list("Availability zones", "zones", spec.zones, hint="Empty: wherever a subnet is")
                self.vpc_id = _text("VPC", "vpc_id", spec.vpc_id, hint="Empty: the region's default one")
                self.subnet_ids = _list(
                    "Subnets", "subnet_ids", spec.subnet_ids, hint="Of that VPC, in place of availability zones"
                )
                self.volume_gb = Field(
                    "Root volume, GB",
                    name="aws_volume_gb",
                    kind="number",
                    value=str(spec.volume_gb),
                    min=VOLUME_GB[0],
                    max=VOLUME_GB[1],
                    testid="pool-aws-volume-gb",
                )
                self.market = Field(
                    "Bought as",
                    name="aws_market",
                    kind="select",
                    value="spot" if spec.spot else "on-demand",
                    options={"on-demand": "On demand", "spot": "Spot: cheaper, AWS may take it away"},
                    testid="pool-aws-market",
                )
                self.cost = _text("Booked on", "cost", spec.cost, hint="A tag; empty: the pool's name")
                self.ssh_cidrs = _list("SSH from", "ssh_cidrs", spec.ssh_cidrs, hint="Networks; empty: from nowhere")
                self.ssh_key = Field(
                    "SSH key",
                    name="aws_ssh_key",
                    kind="select",
                    value="made" if spec.ssh_key else "none",
                    options={"none": "None", "made": "Made, and kept by the server"},
                    testid="pool-aws-ssh-key",
                )
            self.ami = _text(
                "AMI",
                "ami",
                spec.ami,
                hint="An id, or an SSM parameter: looked up for the first machine, kept while the pool has any",
            )
            self.image = _text("Container image", "image", spec.image, hint="What researchers work in")

    @property
    def all(self) -> list[Field]:
        """Every field."""
        return [value for value in vars(self).values() if isinstance(value, Field)]

    def read(self) -> AwsSpec:
        """What stands in the fields now.

        Raises:
            ValueError: the volume's size is no number.
        """
        return AwsSpec(
            instance_types=_several(self.instance_types.value),
            zones=_several(self.zones.value),
            vpc_id=self.vpc_id.value.strip() or None,
            subnet_ids=_several(self.subnet_ids.value),
            ami=self.ami.value.strip(),
            volume_gb=int(self.volume_gb.value),
            spot=self.market.value == "spot",
            image=self.image.value.strip() or None,
            ssh_cidrs=_several(self.ssh_cidrs.value),
            ssh_key=self.ssh_key.value == "made",
            cost=self.cost.value.strip() or None,
        )


def _text(label: str, name: str, value: str | None, *, hint: str) -> Field:
    testid = f"pool-aws-{name.replace('_', '-')}"
    return Field(label, name=f"aws_{name}", value=value or "", hint=hint, testid=testid)


def _list(label: str, name: str, values: Sequence[str], *, hint: str) -> Field:
    return _text(label, name, ", ".join(values), hint=hint)


def _several(value: str) -> tuple[str, ...]:
    return tuple(filter(None, re.split(r"[,\s]+", value)))
