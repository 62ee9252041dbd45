"""The imitating programs, in a place that every user of this machine may enter."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness.imitation_start_host import install


class Imitation:
    """The programs' directory: what was asked of them, and what they wait for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.start_host = install(directory)

    def calls(self, program: str = "start-host") -> list[dict[str, Any]]:
        """The calls of a program so far."""
        lines = (self.directory / "calls.jsonl").read_text().splitlines()
        return [call for call in map(json.loads, lines) if call["program"] == program]

    def hold(self, step: str) -> None:
        """Keeps a step (register, start) from going on."""
        (self.directory / f"hold-{step}").touch()

    def let_go(self, step: str) -> None:
        """Lets it go on."""
        (self.directory / f"hold-{step}").unlink()

    def processes(self) -> list[psutil.Process]:
        """What runs of it."""
        script = str(self.directory / "imitation.py")
        return [each for each in psutil.process_iter(["cmdline"]) if script in (each.info["cmdline"] or ())]

    def close(self) -> None:
        """Ends what is left of it: first those that start others."""
        for _ in range(2):
            for process in sorted(self.processes(), key=lambda each: "restart" not in each.info["cmdline"]):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def imitation() -> Iterator[Imitation]:
    """The programs of this test."""
    directory = Path(tempfile.mkdtemp(prefix="lablink-crd-"))
    directory.chmod(0o755)
    programs = Imitation(directory)
    yield programs
    programs.close()
