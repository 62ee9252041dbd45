"""Killed in the middle of an apply: what runs is known or named, and the lock that a dead run left holds up nobody."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend.provisioning.locks import Lock, RunNotes
from backend.provisioning.output import OutputLine
from backend.provisioning.process import PID_FILE
from backend.provisioning.providers import Backend
from backend.provisioning.runner import ERRORED, StateLocked, TerraformFailed, TerraformRunner
from backend.services.aws_spec import AwsSpec
from backend.services.operation_logs import list_operation_log
from tests.aws.machines import read_user_data
from tests.harness.agents import enrol
from tests.harness.local_aws import AMI_PARAMETER, CREDENTIALS, REGION, LocalAws, tags_of
from tests.harness.pools import database_of, make_pool
from tests.harness.server import Server
from tests.harness.waiting import until

SLOW_S = 240


@pytest.fixture
async def server(tmp_path: Path, aws: LocalAws) -> AsyncIterator[Server]:
    """A server with the states of its pools in a bucket, where their locks outlive whoever took them."""
    await aws.ask("s3", "create_bucket", Bucket="kills")
    made = Server(tmp_path / "home", *aws.settings, "aws.state_bucket=kills", environment=CREDENTIALS)
    yield await made.start()
    await made.close()


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_what_was_being_made_when_all_was_killed_is_neither_lost_nor_doubled(
    aws: LocalAws, server: Server
) -> None:
    spec = AwsSpec(ami=AMI_PARAMETER, zones=("us-east-1a",))
    await make_pool(server, "kills", max=9, provider="aws", providers=("local", "aws"), aws=spec)
    operation_id, names = await server.launch(2, "kills")
    await until(lambda: len(list_living(aws)) == 2, within_s=SLOW_S, every_s=0.5, what="both instances run")
    lost = list_living(aws)
    server.kill()
    kill_terraform(server)
    assert await list_objects(aws) == ["pools/dev/2-kills.tfstate.tflock"]

    await server.start()
    ended = await server.until_operation_ends(operation_id, within_s=SLOW_S)
    assert ended["status"] == "succeeded", ended["reason"]
    # What came up is used: the very instances, with what they share.
    living = list_living(aws)
    assert living == lost
    assert sorted(living.values()) == names
    assert await list_in_state(aws) == living
    assert await list_objects(aws) == ["pools/dev/2-kills.tfstate"]
    log = await read_log(server, operation_id)
    assert "the lock that a run of ours left at" in log
    assert "it is taken over: aws_iam_instance_profile.pool[0], aws_iam_role.pool[0]" in log
    await check_tokens_work(aws, server, living)

    # Terraform alone is killed: its machine is in no state, so it is taken away, and its row says why there is none.
    operation_id, more = await server.launch(1, "kills")
    await until(lambda: len(list_living(aws)) == 3, within_s=SLOW_S, every_s=0.5, what="the third instance runs")
    kill_terraform(server)
    ended = await server.until_operation_ends(operation_id, within_s=SLOW_S)
    assert (ended["status"], ended["reason"]) == ("failed", "terraform apply: it was killed (signal 9)")
    assert list_living(aws) == living
    vms = await server.list_vms()
    assert {name: vms[name]["status"] for name in [*names, *more]} == {
        **dict.fromkeys(names, "booting"),
        more[0]: "failed",
    }


async def check_tokens_work(aws: LocalAws, server: Server, living: dict[str, str]) -> None:
    """Each machine enrols with what it was born with."""
    async with server.client() as client:
        for instance_id, hostname in living.items():
            told = await read_user_data(aws, instance_id)
            answer = await enrol(client, told["enrolment_token"], hostname)
            assert answer.status_code == 200, answer.text


def kill_terraform(server: Server) -> None:
    """SIGKILL to Terraform and the processes of its providers."""
    noted = json.loads((server.home / "pools" / "2" / PID_FILE).read_text())
    os.killpg(noted["pid"], signal.SIGKILL)


def list_living(aws: LocalAws) -> dict[str, str]:
    """The names of the pool's instances by id, whatever the state says of them."""
    filters = [
        {"Name": "tag:Pool", "Values": ["kills"]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    found = aws.client("ec2").describe_instances(Filters=filters)["Reservations"]
    return {each["InstanceId"]: tags_of(each)["Name"] for reservation in found for each in reservation["Instances"]}


async def list_objects(aws: LocalAws, bucket: str = "kills") -> list[str]:
    return [each["Key"] for each in (await aws.ask("s3", "list_objects_v2", Bucket=bucket)).get("Contents", [])]


async def list_in_state(aws: LocalAws) -> dict[str, str]:
    answer = await aws.ask("s3", "get_object", Bucket="kills", Key="pools/dev/2-kills.tfstate")
    resources = json.loads(answer["Body"].read())["resources"]
    (vms,) = [each["instances"] for each in resources if each["type"] == "aws_instance"]
    return {each["attributes"]["id"]: each["index_key"] for each in vms}


async def read_log(server: Server, operation_id: int) -> str:
    async with database_of(server) as db:
        return "\n".join(line.message for line in await list_operation_log(db, operation_id))


@pytest.fixture
async def runner(tmp_path: Path, aws: LocalAws) -> TerraformRunner:
    """Terraform on a module that holds its lock for as long as its one resource takes to be made."""
    await aws.ask("s3", "create_bucket", Bucket="locks")
    module = tmp_path / "module"
    module.mkdir()
    (module / "main.tf").write_text(
        'variable "seconds" {}\n'
        'resource "terraform_data" "vm" {\n  for_each = toset(["gpu-001"])\n'
        '  triggers_replace = [var.seconds]\n  provisioner "local-exec" { command = "exec sleep ${var.seconds}" }\n}\n'
    )
    arguments = {"bucket": "locks", "key": "p.tfstate", "region": REGION, "use_lockfile": True, "use_path_style": True}
    made = TerraformRunner(
        Path(shutil.which("terraform") or "terraform"),
        module,
        tmp_path / "pool",
        backend=Backend("s3", arguments),
        environment={key: value for key, value in aws.terraform_environment.items() if key != "HOME"},
        lock_wait_s=1,
    )
    await made.init()
    return made


async def test_a_lock_that_our_dead_run_left_is_released_and_anybody_elses_is_respected(
    aws: LocalAws, runner: TerraformRunner
) -> None:
    said: list[OutputLine] = []
    runner.on_line = said.append
    await runner.plan({"seconds": 3_600}, parallelism=1)
    applying = asyncio.create_task(runner.apply(parallelism=1))
    await until(lambda: any(line.hostname == "gpu-001" for line in said), what="the apply is in its middle")
    os.killpg(json.loads((runner.directory / PID_FILE).read_text())["pid"], signal.SIGKILL)
    with pytest.raises(TerraformFailed, match="it was killed"):
        await applying
    assert "p.tfstate.tflock" in await list_objects(aws, "locks")

    await runner.plan({"seconds": 0}, parallelism=1)
    assert any("the lock that a run of ours left at" in line.message for line in said)
    await runner.apply(parallelism=1)
    assert await list_objects(aws, "locks") == ["p.tfstate"]
    assert await runner.list_vms() == {"gpu-001": True}
    assert not runner.has_unfinished

    await check_state_left_behind(aws, runner)
    held = {
        "ID": "5ca1ab1e-0000-4000-8000-000000000000",
        "Operation": "OperationTypeApply",
        "Who": "ada@laptop",
        "Version": "1.11.4",
        "Created": "2026-11-24T09:30:00.5Z",
        "Path": "locks/p.tfstate",
    }
    await aws.ask("s3", "put_object", Bucket="locks", Key="p.tfstate.tflock", Body=json.dumps(held).encode())
    with pytest.raises(StateLocked, match=r"ada@laptop has had the pool's state locked since 2026-11-24 09:30:00 UTC"):
        await runner.plan({"seconds": 1}, parallelism=1)
    assert "ada@laptop has had this state locked" in "\n".join(line.message for line in said)
    assert "p.tfstate.tflock" in await list_objects(aws, "locks")


async def check_state_left_behind(aws: LocalAws, runner: TerraformRunner) -> None:
    """A state that could not be written to the bucket, as when credentials end meanwhile, is handed in next time."""

    async def read() -> dict[str, Any]:
        return json.loads((await aws.ask("s3", "get_object", Bucket="locks", Key="p.tfstate"))["Body"].read())

    state = await read()
    left = {**state, "serial": state["serial"] + 1, "resources": []}
    (runner.directory / ERRORED).write_text(json.dumps(left))
    await runner.init()
    assert not (runner.directory / ERRORED).exists()
    assert (await read())["resources"] == []


def test_a_lock_is_ours_only_if_a_run_of_ours_can_have_taken_it(tmp_path: Path) -> None:
    notes = RunNotes(tmp_path)
    here = f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"

    def lock(**changes: Any) -> Lock:
        values = {"id": "x", "who": here, "operation": "apply", "created_at": datetime.now(UTC)}
        return Lock(**(values | changes))

    assert not notes.is_left_by_us(lock())
    before = lock()
    notes.note_begin()
    ours = lock()
    assert notes.is_left_by_us(ours)
    assert not notes.is_left_by_us(before)
    assert not notes.is_left_by_us(lock(who="ada@laptop"))
    assert not notes.is_left_by_us(lock(created_at=datetime.now(UTC) + timedelta(minutes=10)))
    notes.note_end()
    assert notes.is_left_by_us(ours)
    # By hand, by the same user on the same machine, after our run had ended.
    assert not notes.is_left_by_us(lock())
    notes.note_begin()
    notes.drop_last()
    assert notes.is_left_by_us(ours)
    notes.forget()
    assert not notes.is_left_by_us(ours)
