"""A class arrives: from the click to the seat's page that shows its machine, against the claim's own answer."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lablink_ui.bench.conditions import Cores, Sizes
from lablink_ui.bench.figures import MS, BenchFailed, Figure, Report
from lablink_ui.bench.server import LOG, BenchServer, serve
from lablink_ui.swarm.report import JSON_NAME

PATH = "click → machine"
_LIMIT_IS = "the claim's own answer"


async def measure(sizes: Sizes, cores: Cores) -> Report:
    """People as `lablink swarm` plays them, in browsers that were never here, while machines beat and admins look on.

    Raises:
        BenchFailed: the swarm found something wrong, not slow.
    """
    async with serve(cores.server, f"pool.default.max={sizes.machines}") as server:
        began = time.monotonic()
        found = await _swarm(server, sizes)
        lag, pause = server.lag(PATH, since=began), server.pause(PATH, since=began)
    if found["errors"] or found["doubles"] or not found["seated"]:
        raise BenchFailed(f"the swarm says: {'; '.join(found['reasons']) or 'nobody sat'}")
    name = f"{sizes.arrivals}, {sizes.machines} machines, {sizes.arrivals_pages} admin pages"
    shown, claim = found["click_to_machine_ms"], found["claim_ms"]
    return Report(
        [
            *(
                Figure(PATH, f"p{percent}, {name}", MS, shown[f"p{percent}"], claim[f"p{percent}"], _LIMIT_IS)
                for percent in (50, 95)
            ),
            lag,
            pause,
        ],
        [f"click → machine: {found['seated']} people sat; the swarm itself was late by {found['swarm_late_ms']} ms."],
    )


async def _swarm(server: BenchServer, sizes: Sizes) -> dict[str, Any]:
    scenario = f"agents: {sizes.machines}\narrivals: {sizes.arrivals}\nadmin_pages: {sizes.arrivals_pages}\nstay: 5 s\n"
    directory = server.home.parent / "swarm"
    directory.mkdir()
    return await run_swarm(server.url, scenario, directory, token=server.token, password=server.password)


async def run_swarm(
    url: str, scenario: str, directory: Path, *, token: str, password: str, seed: int = 1
) -> dict[str, Any]:
    """Plays `lablink swarm` to its end; returns its report. All that it wrote stays in ``directory``.

    Raises:
        BenchFailed: it made no report; says what it said last.
    """
    file = directory / "scenario.yaml"
    file.write_text(scenario, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("lablink")), "swarm", url, "--scenario", str(file)]
    command += ["--report", str(directory), "--seed", str(seed)]
    secret = {"LABLINK_API_TOKEN": token, "LABLINK_ADMIN_PASSWORD": password}
    with (directory / LOG).open("wb") as output:
        swarm = await asyncio.create_subprocess_exec(
            *command, env={**os.environ, **secret}, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            await swarm.wait()
        finally:
            if swarm.returncode is None:
                swarm.terminate()
                await swarm.wait()
    return _read(directory)


def _read(directory: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((directory / JSON_NAME).read_text(encoding="utf-8"))
    except OSError:
        said = (directory / LOG).read_text(encoding="utf-8", errors="replace")[-1_000:]
        raise BenchFailed(f"the swarm made no report: {said}") from None
    return found
