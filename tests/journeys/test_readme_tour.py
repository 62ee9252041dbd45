"""The README's tour, run as it stands: what a newcomer copies must work."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from tests.harness.server import API_TOKEN

README = Path(__file__).parents[2] / "README.md"


def list_commands() -> list[str]:
    """Each curl command of the tour, whole."""
    block = re.search(r"<!-- tour: .*?-->\n```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    joined = block[1].replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("curl ")]


async def run(command: str, server) -> dict:
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        command,
        env={"LABLINK": server.url, "TOKEN": API_TOKEN, "PATH": "/usr/local/bin:/usr/bin:/bin", "NO_PROXY": "*"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    return json.loads(said)


async def test_the_tour_of_the_readme_works_line_by_line(start_server) -> None:
    server = await start_server(verb="demo")
    create, operation, instances, claim, destroy_one, destroy_all = list_commands()
    created = await run(create, server)
    assert created["hostnames"] == ["default-001", "default-002"]
    await server.until_status(created["hostnames"], "available")
    assert (await run(operation, server))["status"] in {"running", "succeeded"}
    assert {vm["status"] for vm in (await run(instances, server))["instances"]} == {"available"}
    claimed = await run(claim, server)
    assert claimed["hostname"] in created["hostnames"]
    assert "/seat/open/" in claimed["seat_url"]
    assert (await run(destroy_one, server))["hostnames"] == ["default-001"]
    assert "default-002" in (await run(destroy_all, server))["hostnames"]
