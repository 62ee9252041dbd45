"""Database, state and EC2 are compared, and mended only by a person: a local AWS and real Terraform."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from backend.db.engine import Database
from backend.errors import NotFound
from backend.services.pools import get_pool
from backend.states import OperationStatus
from tests.aws.test_ec2 import make_provider, run_instance, state_of
from tests.aws.world import AwsWorld
from tests.harness.local_aws import LocalAws

SUCCEEDED = OperationStatus.SUCCEEDED
# Each is several runs of real Terraform.
pytestmark = [pytest.mark.patient, pytest.mark.timeout(600)]


@pytest.fixture
def world(db: Database, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> AwsWorld:
    """A server and a pool of its own for each test, since they share an AWS."""
    name = f"pool{zlib.crc32(request.node.name.encode()) % 10_000}"
    provider = make_provider(tmp_path, aws, monkeypatch, f"server.public_url=https://{name}.example.org")
    return AwsWorld(db, aws, provider, tmp_path, name)


@pytest.mark.long
async def test_what_a_launch_without_refresh_does_not_see_is_found_and_mended_by_a_button_each(
    world: AwsWorld,
) -> None:
    await world.make_pool()
    assert (await world.launch(4)).status is SUCCEEDED
    gone, off, changed, kept = (f"{world.name}-00{number}" for number in (1, 2, 3, 4))
    ids = await world.ids()
    await world.aws.ask("ec2", "terminate_instances", InstanceIds=[ids[gone]])
    await world.aws.ask("ec2", "stop_instances", InstanceIds=[ids[off]])
    tags = [{"Key": "Cost", "Value": "somebody else's"}]
    await world.aws.ask("ec2", "create_tags", Resources=[ids[changed]], Tags=tags)
    group = (await world.instances())[kept]["SecurityGroups"][0]["GroupId"]
    stranger = await run_instance(world.aws, f"{world.name}-050", Server=world.server, Pool=world.name)
    theirs = await run_instance(world.aws, f"{world.name}-051", Server="https://theirs.example.org", Pool=world.name)

    # A launch goes on beside all of it, and notices none of it.
    one_more = await world.launch(1)
    assert one_more.status is SUCCEEDED
    assert gone not in await world.log(one_more)
    assert gone not in await world.ids()

    found = await world.look()
    assert {name: each.mend for name, each in found.items()} == {
        f"gone {gone}": "mark-failed",
        f"stopped {off}": "start",
        f"changed {changed}": "rebuild",
        f"stranger {stranger}": "adopt",
    }
    assert "its tags differ (Cost)" in found[f"changed {changed}"].sentence
    # Nothing is done by itself.
    assert await world.status(gone) == "booting"
    assert await state_of(world.aws, ids[off], stranger, theirs) == ["stopped", "running", "running"]

    await world.mend(found[f"stopped {off}"])
    assert await state_of(world.aws, ids[off]) == ["running"]
    await world.mend(found[f"gone {gone}"])
    assert await world.status(gone) == "failed"
    await world.mend(found[f"stranger {stranger}"])
    assert await world.status(f"{world.name}-050") == "quarantined"
    with pytest.raises(NotFound):
        await world.mend(found[f"gone {gone}"])

    # The one that was taken in is not in the state yet; one rebuild mends that and what was changed by hand.
    left = await world.look()
    assert sorted(left) == [f"changed {changed}", f"unmanaged {world.name}-050"]
    rebuilt = await world.rebuild(left[f"changed {changed}"])
    assert rebuilt.status is SUCCEEDED, await world.log(rebuilt)
    assert await world.look() == {}
    assert (await world.ids())[kept] == ids[kept]
    assert (await world.instances())[kept]["SecurityGroups"][0]["GroupId"] == group

    assert (await world.destroy(gone, f"{world.name}-050", off)).status is SUCCEEDED
    assert await state_of(world.aws, stranger, theirs, ids[off], ids[kept]) == [
        "terminated",
        "running",
        "terminated",
        "running",
    ]
    assert await world.look() == {}

    await check_a_lost_state(world)


async def check_a_lost_state(world: AwsWorld) -> None:
    """It is rebuilt from what exists, and then a plan touches nothing; the pool's AMI is held as before."""
    state, instances = await world.state(), await world.instances()
    (await world.directory() / "terraform.tfstate").unlink()
    (lost,) = (await world.look()).values()
    assert (lost.kind, lost.mend) == ("state-lost", "rebuild")
    rebuilt = await world.rebuild(lost)
    assert rebuilt.status is SUCCEEDED, await world.log(rebuilt)
    assert await world.look() == {}
    assert await world.ids() == {name: each["InstanceId"] for name, each in instances.items()}
    assert await world.plan() == []
    after = await world.state()
    assert managed(after) == managed(state)
    (ami,) = [each for each in after["resources"] if (each["type"], each["name"]) == ("terraform_data", "ami")]
    assert {ami["instances"][0]["attributes"]["output"]["value"]} == {each["ImageId"] for each in instances.values()}


def managed(state: dict) -> list[tuple[str, int]]:
    return sorted((each["type"], len(each["instances"])) for each in state["resources"] if each["mode"] == "managed")


@pytest.mark.long
async def test_a_state_in_a_bucket_is_rebuilt_too_and_the_broken_one_is_kept(
    db: Database, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await aws.ask("s3", "create_bucket", Bucket="lablink-rebuilt")
    on = {"Status": "Enabled"}
    await aws.ask("s3", "put_bucket_versioning", Bucket="lablink-rebuilt", VersioningConfiguration=on)
    server = "https://rebuilt.example.org"
    settings = (f"server.public_url={server}", "aws.state_bucket=lablink-rebuilt")
    world = AwsWorld(db, aws, make_provider(tmp_path, aws, monkeypatch, *settings), tmp_path, "bucket")
    await world.make_pool()
    assert (await world.launch(1)).status is SUCCEEDED
    ids, pool = await world.ids(), await get_pool(db, "bucket")
    await aws.ask("s3", "put_object", Bucket="lablink-rebuilt", Key=f"pools/dev/{pool.id}-bucket.tfstate", Body=b"oops")
    files = await world.provider.facts.list_states(pool)
    assert [each.is_current for each in files] == [True, *[False] * (len(files) - 1)]
    assert await world.provider.facts.read_state(pool) == b"oops"
    assert b'"version": 4' in (await world.provider.facts.read_state(pool, files[1].name) or b"")

    (lost,) = (await world.look()).values()
    assert lost.kind == "state-lost"
    rebuilt = await world.rebuild(lost)
    assert rebuilt.status is SUCCEEDED, await world.log(rebuilt)
    assert await world.look() == {}
    assert await world.ids() == ids
    listed = await aws.ask("s3", "list_objects_v2", Bucket="lablink-rebuilt")
    assert [".broken-" in each["Key"] for each in listed["Contents"]] == [False, True]
    assert await world.plan() == []
