"""AWS on a bad day: what it refuses becomes a sentence, a state that is right, and a next step that works."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text

from backend.db.engine import Database
from backend.provisioning.aws.ec2 import AwsFailed, Ec2
from backend.provisioning.aws.failures import find_failure
from backend.provisioning.providers.aws import AwsProvider
from backend.provisioning.state_files import STATE
from backend.provisioning.steps import Worker
from backend.services.aws_spec import AwsSpec
from backend.services.operation_logs import list_operation_log
from backend.services.operations import get_operation, request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.views import OperationView
from backend.services.vms import get_vm
from backend.settings import load_settings
from backend.tasks.owner import this_process
from tests.conftest import make_database
from tests.harness.faulty_aws import Fault, FaultyAws
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, LocalAws
from tests.services.worlds import ADMIN

# The bad day itself takes long on a machine that is busy.
pytestmark = [pytest.mark.patient, pytest.mark.timeout(600)]
ZONES = ("us-east-1a", "us-east-1b")
NO_ROOM = "We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested."
SAYS_NO_ROOM = "AWS has no room for a machine of this type in this zone at the moment (InsufficientInstanceCapacity). "
EMPTY = '{"version": 4, "terraform_version": "1.9.0", "serial": 7, "lineage": "kept", "outputs": {}, "resources": []}'
SPEC = AwsSpec(ami=AMI_PARAMETER, volume_gb=60, zones=ZONES)


class World:
    """One pool on AWS, met through the proxy, with its state in a directory; no server around it."""

    def __init__(self, db: Database, directory: Path, proxy: FaultyAws) -> None:
        options = [*proxy.settings, "server.public_url=https://bad-day.example.org", "aws.attempts=2"]
        settings = load_settings(options, environment={"LABLINK_HOME": str(directory / "home")})
        self.db, self.proxy, self.aws = db, proxy, proxy.aws
        self.worker = Worker(
            db=db,
            home=settings.home,
            binary=Path(shutil.which("terraform") or "terraform"),
            providers={"aws": AwsProvider(settings)},
            owner=this_process(),
        )
        self.directory = settings.home / "pools" / "1"

    async def launch(self, count: int) -> OperationView:
        """Launches, and returns the operation as it ended."""
        spec = PoolSpec(max=50, provider="aws", providers=("local", "aws"), aws=SPEC)
        await ensure_pool(self.db, "bad", spec, actor=ADMIN)
        operation = await request_launch(self.db, "bad", count, actor=ADMIN)
        await self.worker.run_operation(operation.id)
        return await get_operation(self.db, operation.id)

    async def log(self, operation: OperationView) -> list[str]:
        return [line.message for line in await list_operation_log(self.db, operation.id)]

    async def statuses(self, operation: OperationView) -> dict[str, tuple[str, str | None]]:
        """The status of each VM of an operation, with its reason."""
        vms = [await get_vm(self.db, each.hostname) for each in operation.progress]
        return {vm.hostname: (vm.status, vm.reason) for vm in vms}

    def instances(self) -> dict[str, tuple[str, str]]:
        """Id and zone of each instance, by name."""
        found = self.aws.list_instances(Pool="bad")
        return {name: (each["InstanceId"], each["Placement"]["AvailabilityZone"]) for name, each in found.items()}

    def state(self) -> list[str]:
        """The hostnames in Terraform's state."""
        state = json.loads((self.directory / STATE).read_text())
        (vms,) = [
            each["instances"] for each in state["resources"] if each["name"] == "vm" and each["type"] == "aws_instance"
        ] or [[]]
        return sorted(each["index_key"] for each in vms)


@pytest.fixture(scope="module")
async def world(template_url: str, tmp_path_factory: pytest.TempPathFactory, aws: LocalAws) -> AsyncIterator[World]:
    """One for all: each test launches machines of its own into its pool."""
    db = Database(await make_database(template_url))
    proxy = FaultyAws(aws)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield World(db, tmp_path_factory.mktemp("bad-day"), proxy)
    proxy.close()
    await db.close()


@dataclass
class Day:
    """What happened: a launch with credentials that had expired, then one with good ones and too little room."""

    expired: OperationView
    expired_vms: dict[str, tuple[str, str | None]]
    launched: OperationView
    log: list[str]
    vms: dict[str, tuple[str, str | None]]
    throttled: Fault


@pytest.fixture(scope="module")
async def day(world: World) -> Day:
    """One bad day for all tests: the first zone has room for one machine, the second for two, and four are wanted."""
    proxy = world.proxy
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "yesterdays")
        proxy.fail_key("yesterdays", "ExpiredToken", "The security token included in the request is expired")
        world.directory.mkdir(parents=True)
        (world.directory / STATE).write_text(EMPTY)
        expired = await world.launch(1)
        assert (world.directory / STATE).read_text() == EMPTY
        patch.setenv("AWS_ACCESS_KEY_ID", "todays")
        throttled = proxy.fail("CreateSecurityGroup", "RequestLimitExceeded", "Request limit exceeded.", times=1)
        for zone, room in zip(ZONES, (1, 2), strict=True):
            subnet = subnet_in(world, zone)
            proxy.fail("RunInstances", "InsufficientInstanceCapacity", NO_ROOM, after=room, SubnetId=subnet)
        launched = await world.launch(4)
    proxy.mend()
    statuses = [await world.statuses(each) for each in (expired, launched)]
    return Day(expired, statuses[0], launched, await world.log(launched), statuses[1], throttled)


def subnet_in(world: World, zone: str) -> str:
    found = world.aws.client("ec2").describe_subnets(Filters=[{"Name": "availability-zone", "Values": [zone]}])
    return min(each["SubnetId"] for each in found["Subnets"])


def test_expired_credentials_are_told_with_the_next_step_and_renewed_ones_work(day: Day) -> None:
    says = (
        "AWS takes the server's credentials no longer: they have expired (ExpiredToken). Renew the credentials that "
        "the server runs with (its role, its profile or its environment), then ask again. What exists stays as it is, "
        "and so does Terraform's state."
    )
    assert (day.expired.status, day.expired.reason) == ("failed", says)
    assert list(day.expired_vms.values()) == [("failed", day.expired.reason)]
    assert "booting" in {status for status, _ in day.vms.values()}


def test_what_is_throttled_is_asked_again(day: Day, world: World) -> None:
    assert day.throttled.times == 0
    assert len(world.proxy.of("CreateSecurityGroup")) == 2


def test_machines_that_find_no_room_go_on_to_the_next_zone_and_those_that_came_up_stay(day: Day, world: World) -> None:
    made = {name for name, (status, _) in day.vms.items() if status == "booting"}
    instances = world.instances()
    assert set(instances) == made
    assert sorted(zone for _, zone in instances.values()) == [ZONES[0], ZONES[1], ZONES[1]]
    assert day.log.count("no g4dn.xlarge in us-east-1a at the moment; trying g4dn.xlarge in us-east-1b") == 1
    # Each was made once, and none is left of which nobody knows.
    assert {each["InstanceId"] for each in list_all(world)} == {instance_id for instance_id, _ in instances.values()}
    assert world.state() == sorted(made)


def test_with_no_room_anywhere_it_gives_up_and_says_where_it_tried(day: Day) -> None:
    says = f"{SAYS_NO_ROOM}Name more zones or instance types in the pool, or launch again later."
    tried = "Tried: g4dn.xlarge in us-east-1a, g4dn.xlarge in us-east-1b."
    assert (day.launched.status, day.launched.reason) == ("failed", f"{says} {tried}")
    assert [reason for status, reason in day.vms.values() if status == "failed"] == [says]


async def test_where_a_machine_was_made_is_written_down(day: Day, world: World) -> None:
    async with world.db.transaction() as session:
        rows = (await session.execute(text("SELECT hostname, facts -> 'place' ->> 'zone' FROM vms"))).all()
    zones = {name: zone for name, (_, zone) in world.instances().items()}
    assert zones.items() <= dict(map(tuple, rows)).items()


def list_all(world: World) -> list[dict]:
    """Every instance that was ever made in the pool."""
    found = world.aws.client("ec2").describe_instances(Filters=[{"Name": "tag:Pool", "Values": ["bad"]}])
    return [each for reservation in found["Reservations"] for each in reservation["Instances"]]


async def test_what_is_asked_beside_terraform_is_told_in_the_same_sentences(world: World) -> None:
    ec2 = Ec2(REGION, endpoint_url=world.proxy.url, tags={})
    world.proxy.fail("DescribeInstances", "RequestLimitExceeded", "Request limit exceeded.", times=2)
    assert ec2.list_instances(["nobody"]) == []
    forbidden = world.proxy.fail("DescribeInstances", "UnauthorizedOperation", "You are not authorized")
    with pytest.raises(
        AwsFailed, match=r"AWS does not allow the server DescribeInstances \(UnauthorizedOperation\)\. Add"
    ):
        ec2.list_instances(["nobody"])
    world.proxy.faults.remove(forbidden)


async def test_renewed_credentials_are_taken_up_beside_terraform_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ec2 = Ec2(REGION, endpoint_url=world.proxy.url, tags={})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "yesterdays")
    expired = world.proxy.fail_key(
        "yesterdays", "ExpiredToken", "The security token included in the request is expired"
    )
    with pytest.raises(AwsFailed, match="they have expired"):
        ec2.list_instances(["nobody"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "todays")
    assert ec2.list_instances(["nobody"]) == []
    world.proxy.faults.remove(expired)


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        (
            "RequestID: x, api error InsufficientFreeAddressesInSubnet: Not enough",
            "The subnet has no free address left",
        ),
        ("api error MaxSpotInstanceCountExceeded: Max spot instance count exceeded", "The account's quota for spot"),
        ("api error InvalidAMIID.NotFound: The image id '[ami-0]' does not exist", "The pool's AMI is not there"),
        (
            "waiting for EC2 Instance: last error: Server.InsufficientInstanceCapacity: x",
            "AWS has no room for a machine",
        ),
        (
            "api error Unsupported: Your requested instance type is not supported in your requested zone",
            "AWS does not offer",
        ),
        ("Error: No valid credential sources found: Please see", "The server has no credentials for AWS"),
        (
            "operation error SSM: GetParameter, api error AccessDeniedException: User is not authorized",
            "AWS does not allow the server ssm:GetParameter",
        ),
    ],
)
def test_an_error_of_aws_is_a_sentence_with_a_next_step(said: str, begins: str) -> None:
    failure = find_failure(said)
    assert failure is not None
    assert str(failure).startswith(begins)
    assert failure.next_step.endswith(".")


def test_what_is_not_known_is_left_as_it_was_said() -> None:
    assert find_failure("Unsupported argument: an argument named Throttling is not expected here") is None
