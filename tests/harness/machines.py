"""Machines of one's own: each a real agent that joined, kept running as systemd would, and broken as the test says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

from agent import leftovers
from tests.harness.frail_agent import FILE

ROOT = Path(__file__).parents[2]
KEPT = ("PATH", "HOME", "LANG")
# What an agent ends with so that its machine boots again.
REBOOTS = 75


class Machine:
    """One machine. ``gpus``: how many a stand-in of NVML shows it; ``broken`` is what ``frail_agent`` reads."""

    def __init__(self, directory: Path, hostname: str, *, server_url: str, token: str, gpus: int = 0) -> None:
        self.hostname, self.home = hostname, directory / hostname
        self.boots = 0
        self._server_url, self._token = server_url, token
        self._file, self._log = directory / f"{hostname}.json", directory / f"{hostname}.log"
        self._well: dict[str, Any] = {"clock_s": 0, "gpus": [{} for _ in range(gpus)]}
        self._boot_id = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.break_()

    def break_(self, **broken: Any) -> None:
        """This is broken from now on, and nothing else. (The clock is looked at when the agent starts.)"""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps(self._well | broken), encoding="utf-8")
        fresh.replace(self._file)

    def boot(self) -> Machine:
        """Starts the machine: a new boot."""
        self.boots += 1
        self._boot_id = str(uuid.uuid4())
        return self.start()

    def start(self) -> Machine:
        """Starts the agent in the present boot, as its supervisor does."""
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        own = {
            "LABLINK_SERVER_URL": self._server_url,
            "LABLINK_ENROLMENT_TOKEN": self._token,
            "LABLINK_BOOT_ID": self._boot_id,
            FILE: str(self._file),
        }
        arguments = ("--hostname", self.hostname, "--home", str(self.home))
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.frail_agent", *arguments],
                cwd=ROOT,
                env=kept | own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def keep(self) -> bool:
        """Boots, if the agent has ended for that; a boot brings back whatever was broken. Returns whether it did."""
        if self.process is None or self.process.poll() != REBOOTS:
            return False
        self.break_()
        self.boot()
        return True

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the agent."""
        assert self.process is not None
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()

    def close(self) -> None:
        """Ends the agent and all that it started."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if (self.home / "sessions").is_dir():
            leftovers.main(["remove", str(self.home)])
