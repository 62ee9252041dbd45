"""The whole job on AWS, from the console's page: real Terraform, the real AWS provider, real agents, a local AWS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect
from sqlalchemy import text

from tests.aws.machines import Machines, read_user_data
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, LocalAws, tags_of
from tests.harness.pages import Visitor, visit
from tests.harness.pools import database_of
from tests.harness.server import Server

BUCKET = "lablink-states"
STATE_KEY = "pools/dev/2-gpu.tfstate"
SLOW_S = 240


@pytest.fixture
async def aws(tmp_path: Path) -> AsyncIterator[LocalAws]:
    """An account of its own: at the end nothing may be in it."""
    made = LocalAws(tmp_path)
    yield await made.start()
    made.close()


@pytest.fixture
async def server(tmp_path: Path, aws: LocalAws) -> AsyncIterator[Server]:
    """A server whose pools may be on AWS, and whose states are in a bucket there."""
    await aws.ask("s3", "create_bucket", Bucket=BUCKET)
    settings = (*aws.settings, f"aws.state_bucket={BUCKET}", "aws.owner=ada@lab.org")
    made = Server(tmp_path / "home", *settings, environment=CREDENTIALS)
    yield await made.start()
    await made.close()


@pytest.fixture
async def machines(aws: LocalAws, tmp_path: Path) -> AsyncIterator[Machines]:
    made = Machines(aws, tmp_path / "machines")
    yield made
    await made.close()


@pytest.mark.patient
@pytest.mark.timeout(900)
async def test_a_pool_on_aws_from_the_form_to_an_empty_account(
    aws: LocalAws, server: Server, machines: Machines, browser: Browser
) -> None:
    # Nothing is animated: a page is open for as long as AWS takes.
    admin = await (await visit(browser, server, reduced_motion="reduce")).sign_in()
    await make_pool(admin)
    hostnames = ["gpu-001", "gpu-002"]
    await launch(admin, len(hostnames))
    made = await check_what_was_made(aws, server, hostnames)
    await check_state(aws)
    await check_log(server, [(await read_user_data(aws, each))["enrolment_token"] for each in made.values()])

    for hostname, instance_id in made.items():
        await machines.boot(hostname, instance_id)
    await server.until_status(hostnames, "available")
    taken = await claim(await visit(browser, server, reduced_motion="reduce"))
    assert taken in made

    gone = next(hostname for hostname in hostnames if hostname != taken)
    await destroy(admin, gone)
    machines.end(gone)
    del made[gone]
    assert {name: each["InstanceId"] for name, each in (await list_instances(aws)).items()} == made
    vms = await server.list_vms()
    assert {name: vms[name]["status"] for name in made} == {**dict.fromkeys(made, "available"), taken: "in-use"}

    answer = await server.api.post("/api/admin/destroy", json={"all": True, "pool": "gpu"})
    ended = await server.until_operation_ends(answer.json()["operation_id"], within_s=SLOW_S, every_s=0.5)
    assert ended["status"] == "succeeded", ended["reason"]
    await check_nothing_is_left(aws)
    assert admin.errors == []


async def make_pool(admin: Visitor) -> None:
    page = await admin.go("/admin/pools")
    await expect(page.get_by_test_id("pool-aws-ami")).to_be_hidden()
    await page.get_by_test_id("pool-name").fill("gpu")
    await page.get_by_test_id("pool-provider").select_option("aws")
    await expect(page.get_by_test_id("pool-aws-ami")).to_be_visible()
    for name, value in {
        "instance-types": "g4dn.xlarge, g5.xlarge",
        "zones": "us-east-1b",
        "volume-gb": "60",
        "ami": AMI_PARAMETER,
        "cost": "grant 42",
        "ssh-cidrs": "0.0.0.0/0",
    }.items():
        await page.get_by_test_id(f"pool-aws-{name}").fill(value)
    await page.get_by_test_id("pool-aws-ssh-key").select_option("made")
    await page.get_by_test_id("pool-submit").click()
    await expect(page.get_by_text("aws.ssh_cidrs must be IPv4 networks with /1 to /32")).to_be_visible()
    await page.get_by_test_id("pool-aws-ssh-cidrs").fill("")
    await page.get_by_test_id("pool-submit").click()
    await page.wait_for_url("**/admin/pools/gpu")
    await page.wait_for_function("window.did_handshake")
    await expect(page.get_by_test_id("pool-aws-instance-types")).to_have_value("g4dn.xlarge, g5.xlarge")
    found = await Axe().run(page)
    assert [violation["id"] for violation in found.response["violations"]] == []


async def launch(admin: Visitor, count: int) -> None:
    page = await admin.go("/admin/create?pool=gpu")
    await page.get_by_test_id("launch-count").fill(str(count))
    await page.get_by_test_id("launch-submit").click()
    await page.wait_for_url("**/admin/operations/*")
    await admin.sees_status("operation-status", "succeeded", "failed", within_s=SLOW_S)
    await admin.sees_status("operation-status", "succeeded")


async def check_what_was_made(aws: LocalAws, server: Server, hostnames: list[str]) -> dict[str, str]:
    """EC2 has exactly these, as they were asked for. Returns their instances' ids."""
    instances = await list_instances(aws)
    assert sorted(instances) == hostnames
    for hostname, each in instances.items():
        assert tags_of(each) == {
            "Name": hostname,
            "ManagedBy": "lablink",
            "Server": server.url,
            "Owner": "ada@lab.org",
            "Pool": "gpu",
            "Environment": "dev",
            "Cost": "grant 42",
        }
        assert (each["InstanceType"], each["Placement"]["AvailabilityZone"]) == ("g4dn.xlarge", "us-east-1b")
        options = each["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
        assert each["IamInstanceProfile"]["Arn"].endswith(":instance-profile/lablink-gpu-dev")
        assert each["KeyName"] == "lablink-gpu-dev"
    wanted = await aws.ask("ssm", "get_parameter", Name=AMI_PARAMETER)
    assert {each["ImageId"] for each in instances.values()} == {wanted["Parameter"]["Value"]}
    await check_volumes(aws, instances)
    (group,) = (await aws.ask("ec2", "describe_security_groups", GroupNames=["lablink-gpu-dev"]))["SecurityGroups"]
    assert group["IpPermissions"] == []
    assert {each["GroupId"] for one in instances.values() for each in one["SecurityGroups"]} == {group["GroupId"]}
    key = server.home / "pools" / "2" / "ssh_key"
    assert key.stat().st_mode & 0o777 == 0o600
    return {hostname: each["InstanceId"] for hostname, each in instances.items()}


async def check_volumes(aws: LocalAws, instances: dict) -> None:
    ids = [disk["Ebs"]["VolumeId"] for each in instances.values() for disk in each["BlockDeviceMappings"]]
    volumes = (await aws.ask("ec2", "describe_volumes", VolumeIds=ids))["Volumes"]
    assert [(each["Size"], each["VolumeType"], each["Encrypted"]) for each in volumes] == [(60, "gp3", True)] * len(
        instances
    )


async def check_state(aws: LocalAws) -> None:
    """The state is in the bucket, and nobody holds its lock."""
    listed = await aws.ask("s3", "list_objects_v2", Bucket=BUCKET)
    assert [each["Key"] for each in listed["Contents"]] == [STATE_KEY]
    state = await aws.ask("s3", "get_object", Bucket=BUCKET, Key=STATE_KEY)
    assert state["ServerSideEncryption"] == "AES256"
    assert b"enrolment_token" not in state["Body"].read()


async def check_log(server: Server, tokens: list[str]) -> None:
    async with database_of(server) as db, db.transaction() as session:
        log = await session.scalar(text("SELECT string_agg(message, ' ') FROM operation_logs"))
    assert "gpu-001" in log
    assert [token for token in tokens if token in log] == []


async def claim(researcher: Visitor) -> str:
    page = await researcher.go("/join/gpu")
    await page.get_by_test_id("claim-email").fill("bob@lab.org")
    await page.get_by_test_id("claim-submit").click()
    await page.wait_for_url("**/seat")
    await researcher.sees_status("seat-status", "active")
    return await page.get_by_test_id("seat-hostname").inner_text()


async def destroy(admin: Visitor, hostname: str) -> None:
    page = await admin.go("/admin/instances?destroy=1")
    row = page.get_by_test_id(f"vm-{hostname}")
    await row.get_by_role("checkbox").check()
    await page.get_by_test_id("vm-action-destroy").click()
    await page.get_by_test_id("confirm-submit").click()
    await expect(row).to_have_count(0, timeout=SLOW_S * 1_000)


async def list_instances(aws: LocalAws) -> dict:
    return await asyncio.to_thread(aws.list_instances, Pool="gpu")


async def check_nothing_is_left(aws: LocalAws) -> None:
    assert await list_instances(aws) == {}
    groups = (await aws.ask("ec2", "describe_security_groups"))["SecurityGroups"]
    assert [each["GroupName"] for each in groups if "lablink" in each["GroupName"]] == []
    assert (await aws.ask("ec2", "describe_key_pairs"))["KeyPairs"] == []
    assert (await aws.ask("ec2", "describe_volumes"))["Volumes"] == []
    assert (await aws.ask("iam", "list_roles"))["Roles"] == []
    assert (await aws.ask("iam", "list_instance_profiles"))["InstanceProfiles"] == []
