"""Rehearsals, carried on by whichever process leads: robots at the machines, and a swarm that replays the arrivals."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.db.engine import Database
from backend.services.rehearsal_arrivals import (
    Replay,
    begin_replay,
    find_due_replay,
    leave_replay_out,
    record_replay,
    remove_rehearsal_pools,
)
from backend.services.rehearsal_runs import carry_on_rehearsals, is_replay_wanted
from backend.services.rehearsals import RehearsalRules
from backend.settings import Settings

# Beyond the arrivals themselves: enrolling, the last people's clicks, and all that leaves again.
BEYOND_S, END_S, LOOK_S = 600.0, 5.0, 1.0
STAY_S = 5
REPORT, SCENARIO, SAID = "swarm.json", "scenario.yaml", "said"
# Where a server listens that loopback reaches, and by which address.
_LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::1": "[::1]", "::": "[::1]"}
_PASSED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")

logger = logging.getLogger(__name__)


class Rehearser:
    """What the sweeps of rehearsals do."""

    def __init__(self, db: Database, settings: Settings) -> None:
        self._db, self._settings = db, settings

    async def carry_on(self) -> None:
        """Robots take their next steps."""
        await carry_on_rehearsals(self._db, rules_of(self._settings))

    async def replay(self) -> None:
        """Replays the arrivals of the next rehearsal that is due, to the end. What is left of former ones goes."""
        await remove_rehearsal_pools(self._db)
        rehearsal_id = await find_due_replay(self._db)
        if rehearsal_id is None:
            return
        server = self._settings.server
        address, most_s = _LOOPBACK.get(server.host), self._settings.rehearsals.replay_most_s
        if address is None or not most_s:
            why = f"the server listens on {server.host}, not on loopback" if most_s else "rehearsals.replay_most_s is 0"
            await leave_replay_out(self._db, rehearsal_id, why=why)
            return
        replay = await begin_replay(self._db, rehearsal_id, most_s=most_s)
        if replay is not None:
            await self._run(replay, f"http://{address}:{server.port}")

    async def _run(self, replay: Replay, url: str) -> None:
        with tempfile.TemporaryDirectory(prefix="lablink-rehearsal-") as place:
            report, why = await self._swarm(replay, url, Path(place))
        await record_replay(self._db, replay, report, why=why)

    async def _swarm(self, replay: Replay, url: str, place: Path) -> tuple[Mapping[str, Any] | None, str]:
        """Runs `lablink swarm`. Returns its report, or why there is none."""
        (place / SCENARIO).write_text(_scenario(replay), encoding="utf-8")
        try:
            process = await _start(replay, url, place)
        except OSError as exc:
            return None, f"`lablink swarm` could not be started: {exc.strerror}"
        try:
            has_ended = await self._wait(process, replay)
        finally:
            await _end(process)
        if not has_ended:
            return None, "there was no time left for them"
        return _read_report(place / REPORT, (place / SAID).read_text(errors="replace"))

    async def _wait(self, process: asyncio.subprocess.Process, replay: Replay) -> bool:
        """Until its end, its deadline, or until nobody wants it any more. Returns whether it has ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(replay.within_s + BEYOND_S):
                while process.returncode is None and await is_replay_wanted(self._db, replay.rehearsal_id):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), LOOK_S)
        return process.returncode is not None


def rules_of(settings: Settings) -> RehearsalRules:
    """How robots behave, by the settings."""
    keys = settings.rehearsals
    return RehearsalRules(keys.at_once, keys.check_deadline_s, keys.deadline_s, settings.schedules.default_lead_s)


async def _start(replay: Replay, url: str, place: Path) -> asyncio.subprocess.Process:
    """The token goes by the environment, which holds nothing else of ours."""
    environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
    command = Path(sys.executable).with_name("lablink")
    with (place / SAID).open("wb") as said:
        return await asyncio.create_subprocess_exec(
            *(command, "swarm", url, "--scenario", place / SCENARIO, "--report", place),
            cwd=place,
            env={**environment, "LABLINK_API_TOKEN": replay.token},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _scenario(replay: Replay) -> str:
    """People who come, click (some twice), look again, and stay: a first morning without mishaps."""
    return (
        f"pool: {replay.pool}\nagents: {replay.agents}\narrivals: {replay.people} in {replay.within_s} s\n"
        f"admin_pages: 0\nstay: {STAY_S} s\nfiles: false\nreturns: 0 %\nwifi_losses: 0 %\ngives_back: 0 %\n"
    )


def _read_report(file: Path, said: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        last = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "it said nothing")
        return None, f"the swarm made no report: {last[:200]}"
    return (report, "") if isinstance(report, dict) else (None, "the swarm's report is none")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Tells it to stop, so that its machines leave; and ends it if it does not."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
