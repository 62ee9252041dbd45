"""What a pool on AWS is made of: kept as it was given, refused with a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from backend.errors import InvalidInput
from backend.services.aws_spec import AwsSpec, Placement
from backend.services.pools import PoolSpec, create_pool, get_pool, spec_of, update_pool
from backend.setting_keys import AwsPoolSettings
from tests.services.worlds import ADMIN

ALL = AwsSpec(
    instance_types=("g4dn.xlarge", "g5.2xlarge"),
    vpc_id="vpc-0123456789abcdef0",
    subnet_ids=("subnet-0123456789abcdef0", "subnet-1123456789abcdef0"),
    ami="ami-0123456789abcdef0",
    volume_gb=250,
    spot=True,
    image="ghcr.io/example/lab:1.2",
    ssh_cidrs=("192.0.2.0/24",),
    ssh_key=True,
    cost="grant 42",
)
WRONG = {
    "no type": ({"instance_types": ()}, "aws.instance_types must name one instance type or more."),
    "type": (
        {"instance_types": ("huge",)},
        "aws.instance_types must be instance types, such as g4dn.xlarge, not 'huge'.",
    ),
    "zone": ({"zones": ("us-west-2",)}, "aws.zones must be availability zones, such as us-west-2a, not 'us-west-2'."),
    "many zones": ({"zones": tuple(f"us-west-2{each}" for each in "abcdefghijk")}, "aws.zones takes at most 10."),
    "both": (
        {"zones": ("us-west-2a",), "subnet_ids": ("subnet-01234567",), "vpc_id": "vpc-01234567"},
        "aws.zones and aws.subnet_ids exclude each other: a subnet has its zone.",
    ),
    "no vpc": ({"subnet_ids": ("subnet-01234567",)}, "aws.subnet_ids needs aws.vpc_id, the VPC they are in."),
    "ami": ({"ami": "ubuntu"}, "aws.ami must be an AMI's id, or the SSM parameter that names one"),
    "volume": ({"volume_gb": 4}, "aws.volume_gb must be from 8 to 16384 GB."),
    "the internet": ({"ssh_cidrs": ("0.0.0.0/0",)}, "aws.ssh_cidrs must be IPv4 networks with /1 to /32"),
    "cost": ({"cost": "a\nb"}, "aws.cost must be 1 to 128 letters"),
    "image": ({"image": "an image"}, "aws.image must be a container image"),
}


async def test_a_specification_is_kept_with_its_pool_and_can_be_edited(db) -> None:
    spec = PoolSpec(provider="aws", providers=("local", "aws"), aws=ALL)
    await create_pool(db, "gpu", spec, actor=ADMIN)
    kept = await get_pool(db, "gpu")
    assert kept.aws == ALL
    edited = replace(spec_of(kept), providers=("aws",), aws=replace(ALL, volume_gb=500))
    assert (await update_pool(db, "gpu", edited, actor=ADMIN)).aws.volume_gb == 500


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_wrong_specification_is_refused_with_a_sentence(db, wrong: str) -> None:
    changes, sentence = WRONG[wrong]
    spec = PoolSpec(provider="aws", providers=("aws",), aws=replace(AwsSpec(), **changes))
    with pytest.raises(InvalidInput) as refused:
        await create_pool(db, "gpu", spec, actor=ADMIN)
    assert refused.value.message.startswith(sentence)


async def test_a_local_pool_keeps_nothing_of_aws(db) -> None:
    await create_pool(db, "lab", PoolSpec(aws=ALL), actor=ADMIN)
    assert (await get_pool(db, "lab")).aws == AwsSpec()


def test_the_settings_of_the_first_pool_are_a_specification() -> None:
    assert AwsSpec.of(vars(AwsPoolSettings())) == AwsSpec()


def test_places_are_tried_type_by_type() -> None:
    types = ("g4dn.xlarge", "g5.xlarge")
    assert AwsSpec(instance_types=types).list_placements() == [Placement(each) for each in types]
    spread = AwsSpec(instance_types=types, zones=("us-west-2b", "us-west-2a"))
    assert [(each.instance_type, each.zone) for each in spread.list_placements()] == [
        ("g4dn.xlarge", "us-west-2b"),
        ("g4dn.xlarge", "us-west-2a"),
        ("g5.xlarge", "us-west-2b"),
        ("g5.xlarge", "us-west-2a"),
    ]
    assert [each.subnet_id for each in ALL.list_placements()] == [*ALL.subnet_ids, *ALL.subnet_ids]
