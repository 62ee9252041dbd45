"""What a pool on AWS is made of: types, places, image, volume, access. Checked here, kept with its pool."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from backend import aws_forms
from backend.aws_forms import Form
from backend.errors import InvalidInput
from backend.setting_keys import AwsPoolSettings

MOST_CHOICES = 10
VOLUME_GB = (8, 16_384)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and as what a VM may be made; ``subnet_id`` or ``zone`` or neither."""

    instance_type: str
    subnet_id: str | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class AwsSpec:
    """The part of a pool's specification that only AWS knows; each means what its setting says (``setting_keys``)."""

    instance_types: tuple[str, ...] = ("g4dn.xlarge",)
    zones: tuple[str, ...] = ()
    vpc_id: str | None = None
    subnet_ids: tuple[str, ...] = ()
    ami: str = AwsPoolSettings().ami
    volume_gb: int = 100
    spot: bool = False
    image: str | None = None
    ssh_cidrs: tuple[str, ...] = ()
    ssh_key: bool = False
    cost: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> AwsSpec:
        """From JSON or from settings; what is missing has its default."""
        names = {each.name for each in fields(cls)}
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**{name: value for name, value in known.items() if name in names})

    def as_json(self) -> dict[str, Any]:
        """For the database."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def list_placements(self) -> list[Placement]:
        """Where a VM may be made, the preferred first: all places of the first type, then those of the second."""
        places: Sequence[dict[str, str]] = (
            [{"subnet_id": each} for each in self.subnet_ids] or [{"zone": each} for each in self.zones] or [{}]
        )
        return [Placement(each, **place) for each in self.instance_types for place in places]

    def check(self) -> None:
        """Raises:
        InvalidInput: a value is out of range or does not go with another; says which.
        """
        for holds, sentence in self._rules():
            if not holds:
                raise InvalidInput(f"{sentence}.")

    def _rules(self) -> Iterator[tuple[bool, str]]:
        yield bool(self.instance_types), "aws.instance_types must name one instance type or more"
        yield _has_form("aws.instance_types", self.instance_types, aws_forms.INSTANCE_TYPE)
        yield _has_form("aws.zones", self.zones, aws_forms.ZONE)
        yield _has_form("aws.subnet_ids", self.subnet_ids, aws_forms.SUBNET)
        yield _has_form("aws.ssh_cidrs", self.ssh_cidrs, aws_forms.NETWORK)
        yield _has_form("aws.vpc_id", self.vpc_id, aws_forms.VPC)
        yield _has_form("aws.ami", self.ami, aws_forms.AMI)
        yield _has_form("aws.image", self.image, aws_forms.IMAGE)
        yield _has_form("aws.cost", self.cost, aws_forms.TAG)
        low, high = VOLUME_GB
        yield low <= self.volume_gb <= high, f"aws.volume_gb must be from {low} to {high} GB"
        yield (
            not (self.zones and self.subnet_ids),
            "aws.zones and aws.subnet_ids exclude each other: a subnet has its zone",
        )
        yield not (self.subnet_ids and self.vpc_id is None), "aws.subnet_ids needs aws.vpc_id, the VPC they are in"


def _has_form(name: str, given: str | Sequence[str] | None, form: Form) -> tuple[bool, str]:
    """Whether what was given, one or several, is of this form; and what to say if it is not."""
    values = [] if given is None else [given] if isinstance(given, str) else list(given)
    wrong = next((value for value in values if not re.fullmatch(form[0], value)), None)
    if wrong is not None:
        return False, f"{name} must be {form[1]}, not '{wrong[:80]}'"
    return len(values) <= MOST_CHOICES, f"{name} takes at most {MOST_CHOICES}"
