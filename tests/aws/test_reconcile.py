"""Database, state and EC2 are compared, and mended only by a person: a local AWS and real Terraform."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.db.engine import Database
from backend.states import OperationStatus
from tests.aws.test_ec2 import make_provider
from tests.aws.world import AwsWorld
from tests.harness.local_aws import LocalAws

SUCCEEDED = OperationStatus.SUCCEEDED


@pytest.fixture
def world(db: Database, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request) -> AwsWorld:
    server = f"https://{abs(hash(request.node.name))}.example.org"
    provider = make_provider(tmp_path, aws, monkeypatch, f"server.public_url={server}")
    return AwsWorld(db, aws, provider, tmp_path, f"r{abs(hash(request.node.name)) % 10_000}")


async def test_a_lost_state_is_rebuilt_from_what_exists_and_a_plan_then_touches_nothing(world: AwsWorld) -> None:
    await world.make_pool()
    launched = await world.launch(2)
    assert launched.status is SUCCEEDED, launched.reason
    assert await world.look() == {}
    ids, directory = await world.ids(), await world.directory()
    before = await world.state()

    for damage in ("remove", "corrupt"):
        state = directory / "terraform.tfstate"
        if damage == "remove":
            state.unlink()
        else:
            state.write_text('{"version": 4, "resou')
        (lost,) = (await world.look()).values()
        assert (lost.kind, lost.mend) == ("state-lost", "rebuild")
        rebuilt = await world.rebuild(lost)
        assert rebuilt.status is SUCCEEDED, await world.log(rebuilt)
        assert await world.look() == {}
        assert await world.ids() == ids
        assert {actions[0] for _, actions in await world.plan()} == {"no-op"}
    after = await world.state()
    assert {each["type"] for each in after["resources"]} == {each["type"] for each in before["resources"]}
    assert len(list(directory.glob("terraform.tfstate.broken-*"))) == 1

    # And it goes on as before: one more, of the same AMI, and one less.
    assert (await world.launch(1)).status is SUCCEEDED
    assert (await world.destroy(f"{world.name}-001")).status is SUCCEEDED
    del ids[f"{world.name}-001"]
    now = await world.instances()
    assert {name: now[name]["InstanceId"] for name in ids} == ids
    assert len({each["ImageId"] for each in now.values()}) == 1
