from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from backend.db.engine import Database
from backend.errors import Unavailable
from backend.provisioning.priority import NICENESS
from backend.services.operations import get_operation, request_launch
from backend.services.pools import PoolSpec, ensure_pool
from backend.services.runs import list_living
from backend.states import OperationStatus
from tests.harness.waiting import until
from tests.provisioning.world import World
from tests.services.worlds import ADMIN

SUCCEEDED, FAILED = OperationStatus.SUCCEEDED, OperationStatus.FAILED


@pytest.fixture
async def world(db: Database, tmp_path: Path) -> AsyncIterator[World]:
    made = World(db, tmp_path)
    yield made
    made.close()


def written(directory: Path) -> str:
    """Everything that lies in a directory, archives opened; but for the one file that is there to hold tokens."""
    found = []
    for path in directory.rglob("*"):
        if path.is_file() and path.name != "vm-inputs.json":
            found.append(path.read_bytes())
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    found += [archive.read(name) for name in archive.namelist()]
    return b"\n".join(found).decode(errors="replace")


async def test_a_machine_that_may_have_been_left_behind_does_not_count_as_gone(world: World, monkeypatch) -> None:
    async def refuse(_: object) -> None:
        raise Unavailable("The cloud does not answer.")

    await world.launch(1)
    world.terraform("state", "rm", 'terraform_data.vm["lab-001"]')
    with monkeypatch.context() as patch:
        patch.setattr(world.provider, "remove_leftovers", refuse)
        refused = await world.destroy("lab-001")
    assert (refused.status, refused.reason) == (FAILED, "The cloud does not answer.")
    assert await world.status("lab-001") == "failed"
    assert (await world.destroy("lab-001")).status is SUCCEEDED
    assert world.vms.list_running() == {}


async def test_a_launch_that_would_touch_a_living_machine_is_refused_and_says_why(world: World) -> None:
    assert (await world.launch(2)).status is SUCCEEDED
    await world.beat("lab-001")
    running = world.vms.list_running()
    world.terraform("taint", 'terraform_data.vm["lab-001"]')

    refused = await world.launch(1)
    assert refused.status is FAILED
    says = "The plan was refused: it would replace lab-001, which is a living machine."
    assert refused.reason == says
    assert says in await world.log(refused)
    assert world.vms.list_running() == running
    assert await world.status("lab-001") == "available"
    assert await world.status("lab-003") == "failed"
    assert (await get_vm_reason(world, "lab-003")) == says

    # The plan that was refused is still there to be read; nobody's token is in it, nor in anything else.
    tokens = [world.token_of(name) for name in ("lab-001", "lab-002")]
    tokens += json.loads((world.directory / "vm-inputs.json").read_text())["tokens"].values()
    assert (world.directory / "plan.out").exists()
    everything = written(world.directory) + world.terraform("show", "-json", "plan.out")
    assert "lab-003" in everything
    assert not [token for token in tokens if token in everything]

    # Once that machine is gone, the pool is as any other.
    assert (await world.destroy("lab-001", "lab-003")).status is SUCCEEDED
    assert (await world.launch(1)).status is SUCCEEDED
    assert set(world.vms.list_running()) == {"lab-002", "lab-004"}
    assert world.vms.list_running()["lab-002"] == running["lab-002"]


async def get_vm_reason(world: World, hostname: str) -> str | None:
    from backend.services.vms import get_vm

    return (await get_vm(world.db, hostname)).reason


async def test_a_launch_that_follows_a_half_made_machine_goes_through_and_makes_it_anew(world: World) -> None:
    world.hold("lab-002")

    async def fail_it() -> None:
        await world.begins("lab-002")
        await world.fail("lab-002")

    failed = await world.launch(2, meanwhile=fail_it)
    assert failed.status is FAILED
    assert "exit status 7" in (failed.reason or "")
    assert (await world.status("lab-001"), await world.status("lab-002")) == ("booting", "failed")
    assert set(world.vms.list_running()) == {"lab-001"}
    kept = world.vms.list_running()["lab-001"]

    repaired = await world.launch(1)
    assert repaired.status is SUCCEEDED
    assert "half-made machines are made anew: lab-002" in await world.log(repaired)
    assert [each.hostname for each in repaired.progress] == ["lab-002", "lab-003"]
    assert {await world.status(name) for name in ("lab-001", "lab-002", "lab-003")} == {"booting"}
    assert set(world.vms.list_running()) == {"lab-001", "lab-002", "lab-003"}
    assert world.vms.list_running()["lab-001"] == kept


async def test_a_destroy_clears_half_made_machines_away_instead_of_making_them(world: World) -> None:
    world.hold("lab-002")

    async def fail_it() -> None:
        await world.begins("lab-002")
        await world.fail("lab-002")

    await world.launch(3, meanwhile=fail_it)
    kept = world.vms.list_running()["lab-003"]
    assert (await world.destroy("lab-001")).status is SUCCEEDED
    assert world.vms.list_running() == {"lab-003": kept}
    assert world.terraform("state", "list").strip() == 'terraform_data.vm["lab-003"]'
    assert await world.status("lab-002") == "failed"
    assert (await world.destroy("lab-002", "lab-003")).status is SUCCEEDED
    assert world.vms.list_existing() == []


async def test_a_machine_that_reported_is_made_though_terraform_was_kept_from_finishing_it(world: World) -> None:
    world.hold("lab-001")

    async def report_then_fail_it() -> None:
        await world.beat("lab-001")
        await world.fail("lab-001")

    failed = await world.launch(1, meanwhile=report_then_fail_it)
    assert failed.status is FAILED
    assert "lab-001 has reported: it is made" in await world.log(failed)
    assert await world.status("lab-001") == "available"
    running = world.vms.list_running()
    assert (await world.launch(1)).status is SUCCEEDED
    assert world.vms.list_running()["lab-001"] == running["lab-001"]


async def test_a_machine_that_reports_while_its_cut_off_launch_ends_is_left_alone_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.hold("lab-001")
    beats: list[str] = []

    async def look_then_report(db: Database, pool_id: int) -> frozenset[str]:
        found = await list_living(db, pool_id)
        if "lab-001" in world.vms.list_running() and not beats:
            beats.append("lab-001")
            await world.beat("lab-001")
        return found

    async def fail_it() -> None:
        await world.begins("lab-001")
        await world.fail("lab-001")

    monkeypatch.setattr("backend.services.runs.list_living", look_then_report)
    assert (await world.launch(1, meanwhile=fail_it)).status is FAILED
    assert await world.status("lab-001") == "available"
    running = world.vms.list_running()["lab-001"]
    later = await world.launch(1)
    assert later.status is SUCCEEDED, later.reason
    assert "lab-001 has reported: it is made" in await world.log(later)
    assert world.vms.list_running()["lab-001"] == running


async def test_what_belongs_to_a_pool_is_private_and_its_state_names_machines_only(world: World) -> None:
    # As if this were one of the server's own secrets.
    world.worker.secrets = ("to add,",)
    operation = await world.launch(2)
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((world.directory / "vm-inputs.json").stat().st_mode) == 0o600
    for name, pid in world.vms.list_running().items():
        assert stat.S_IMODE((world.vms.root / name / "vm.json").stat().st_mode) == 0o600
        assert psutil.Process(pid).nice() >= NICENESS
        # Where Linux shares the computer by session, that is what counts.
        assert [each.read_text().split()[-1] for each in Path(f"/proc/{pid}").glob("autogroup")] in (
            [],
            [f"{NICENESS}"],
        )
        said = await world.log(operation)
        assert f'terraform_data.vm["{name}"]: Creation complete' in said
        assert world.token_of(name) not in written(world.directory) + said
        assert ("to add," in said, "[secret]" in said) == (False, True)
    state = json.loads((world.directory / "terraform.tfstate").read_text())
    ((first, second),) = (resource["instances"] for resource in state["resources"])
    assert first["attributes"]["input"]["value"] == {"hostname": "lab-001"}
    assert second["index_key"] == "lab-002"


async def test_a_worker_that_is_stopped_takes_terraform_with_it_and_the_state_is_kept(world: World) -> None:
    world.worker.parallelism = 1
    await ensure_pool(world.db, "lab", PoolSpec(max=20), actor=ADMIN)
    operation = await request_launch(world.db, "lab", 5, actor=ADMIN)
    work = asyncio.create_task(world.worker.run_operation(operation.id))
    await until(lambda: len(world.vms.list_existing()) >= 2, every_s=0.01)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    assert not [each for each in psutil.process_iter() if is_terraform_of(each, world.directory)]
    assert not (world.directory / "terraform.pid").exists()
    running = world.vms.list_running()
    assert len(running) < 5

    # Nothing is decided yet: whoever comes next takes the operation up where it stands.
    assert (await get_operation(world.db, operation.id)).status is OperationStatus.RUNNING
    world.worker.parallelism = 0
    assert (await world.carry_out(operation.id)).status is SUCCEEDED
    assert set(world.vms.list_running()) == {f"lab-{number:03d}" for number in range(1, 6)}


def is_terraform_of(process: psutil.Process, directory: Path) -> bool:
    with contextlib.suppress(psutil.Error):
        return "terraform" in process.name() and process.cwd() == str(directory)
    return False
