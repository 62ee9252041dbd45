"""A launch of local machines by the API, against a raw `terraform apply` of the same module with the same inputs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from backend.db.engine import Database
from backend.provisioning.providers import ProviderVm
from backend.provisioning.providers.local import LocalProvider
from backend.provisioning.runner import TFVARS
from backend.provisioning.terraform_binary import ensure_terraform
from backend.services.pools import list_pools
from backend.services.views import PoolView
from backend.settings import load_settings
from lablink_ui.bench.conditions import Cores, Sizes, pinned_to
from lablink_ui.bench.figures import BenchFailed, Figure, Report, S
from lablink_ui.bench.machines import POOL
from lablink_ui.bench.server import BenchServer, end_vms, serve

WITHIN_S = 120.0
# Times are read from what the server wrote down; looking more often would only disturb it.
LOOK_S = 0.5
_APPLYING = """SELECT extract(epoch FROM min(at) FILTER (WHERE message LIKE '%%: Creating...')),
    extract(epoch FROM max(at) FILTER (WHERE message LIKE '%%: Creation complete%%'))
    FROM operation_logs WHERE operation_id = %s"""


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """The same number of machines raw and by us, one after the other, on the same server; both on all cores.

    Raises:
        BenchFailed: Terraform failed, or a machine did not become available.
    """
    reports = [await _measure(count, cores) for count in sizes.launched]
    shared = "launch: server, Terraform and agents share all cores, both times."
    notes = [note for report in reports for note in report.notes]
    return Report([figure for report in reports for figure in report.figures], [shared, *notes])


async def _measure(count: int, cores: Cores) -> Report:
    async with serve(cores.all, f"pool.default.max={2 * count + 1}") as server:
        # One machine first: the disk's cache is then as warm for the raw run as it is for ours.
        await _apply_raw(server, cores, "warm", 1)
        raw_applied_s, raw_available_s = await _apply_raw(server, cores, "raw", count)
        applied_s, available_s, note = await _launch(server, count)
    return Report(
        [
            Figure(
                "launch",
                f"{count} machines, to the operation's end",
                S,
                applied_s,
                raw_applied_s,
                "a raw `terraform apply` of the same module",
            ),
            Figure(
                "launch",
                f"{count} machines, to the last available",
                S,
                available_s,
                raw_available_s,
                "the raw apply, and its agents' own start",
            ),
        ],
        [f"launch of {count}: {note}"],
    )


async def _launch(server: BenchServer, count: int) -> tuple[float, float, str]:
    began = time.time()
    asked = await server.ask("POST", "/api/admin/create", {"pool": POOL, "count": count})
    available_at = await _until_available(server, asked["hostnames"])
    operation = await _until_ended(server, asked["operation_id"])
    if operation["status"] != "succeeded":
        raise BenchFailed(f"the launch {operation['status']}: {operation['reason']}")
    ended_at = _moment(operation["finished_at"])
    async with await psycopg.AsyncConnection.connect(server.database_url) as connection:
        first, last = await (await connection.execute(_APPLYING, (operation["id"],))).fetchone() or (began, ended_at)
    note = (
        f"of ours, {float(first) - began:.1f} s pass before Terraform begins with the first machine (queue,"
        f" init, plan, guard) and {ended_at - float(last):.1f} s after the last (looking, writing down)."
    )
    return ended_at - began, available_at - began, note


async def _apply_raw(server: BenchServer, cores: Cores, name: str, count: int) -> tuple[float, float]:
    """Seconds until the apply ended and until the last of its machines was available. Nothing of them remains."""
    home = server.home.parent / name
    provider = LocalProvider(load_settings([f"server.port={server.port}"], environment={"LABLINK_HOME": str(home)}))
    tokens = (await server.ask("POST", "/api/admin/enrolments", {"pool": POOL, "count": count}))["tokens"]
    vms = [ProviderVm(f"{name}-{number:03d}", token) for number, token in enumerate(tokens)]
    for source in provider.module.glob("*.tf"):
        shutil.copy(source, home)
    inputs = provider.write_inputs(home, await _get_pool(server), vms)
    (home / TFVARS).write_text(json.dumps(inputs.tfvars), encoding="utf-8")
    binary = str(await ensure_terraform(server.home, download=True))
    environment = {**_environment(), **inputs.environment}
    try:
        with pinned_to(cores.all):
            await _run([binary, "init", "-input=false"], home, environment)
            began = time.time()
            apply = [binary, "apply", "-auto-approve", "-input=false", f"-parallelism={inputs.parallelism}"]
            await _run(apply, home, environment)
            applied_s = time.time() - began
        return applied_s, await _until_available(server, [vm.hostname for vm in vms]) - began
    finally:
        await asyncio.to_thread(end_vms, home / "vms")


async def _run(argv: list[str], directory: Path, environment: dict[str, str]) -> None:
    with (directory / "output.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, cwd=directory, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        status = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if status != 0:
        said = (directory / "output.log").read_text(encoding="utf-8", errors="replace")[-1_000:]
        raise BenchFailed(f"terraform {argv[1]} ended with {status}: {said}")


async def _get_pool(server: BenchServer) -> PoolView:
    db = Database(server.database_url)
    try:
        return next(pool for pool in await list_pools(db) if pool.name == POOL)
    finally:
        await db.close()


async def _until_available(server: BenchServer, hostnames: Collection[str]) -> float:
    """The moment (seconds since 1970) at which the last of these machines became available."""
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        vms = (await server.ask("GET", "/api/admin/instances"))["instances"]
        since = [_moment(vm["status_changed_at"]) for vm in vms if _is_up(vm, hostnames)]
        if len(since) == len(hostnames):
            return max(since)
        await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"{len(hostnames) - len(since)} of {len(hostnames)} machines were not available in {WITHIN_S} s")


def _is_up(vm: dict[str, Any], hostnames: Collection[str]) -> bool:
    return vm["status"] == "available" and vm["hostname"] in hostnames


async def _until_ended(server: BenchServer, operation_id: int) -> dict[str, Any]:
    end = time.monotonic() + WITHIN_S
    while time.monotonic() < end:
        operation: dict[str, Any] = await server.ask("GET", f"/api/admin/operations/{operation_id}")
        if operation["finished_at"]:
            return operation
        await asyncio.sleep(LOOK_S)
    raise BenchFailed(f"operation {operation_id} did not end in {WITHIN_S:.0f} s")


def _moment(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**passed, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
