"""What is remembered between runs: which rounds have passed, by scenario, seed and commit."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.soak.rounds import ARTIFACTS

ROOT = Path(__file__).parents[2]


class Memory:
    """A file that git ignores; each round is noted as soon as it has passed."""

    def __init__(self, path: Path = ARTIFACTS / "passed.json") -> None:
        self._path = path

    def list_passed(self, key: str) -> set[int]:
        """The numbers of the rounds that have passed."""
        return set(self._read().get(key, ()))

    def note(self, key: str, number: int) -> None:
        """Remembers that a round has passed."""
        self._write(self._read() | {key: sorted({*self.list_passed(key), number})})

    def forget(self, key: str) -> None:
        """Forgets them all, so that they are played again."""
        self._write({other: passed for other, passed in self._read().items() if other != key})

    def _read(self) -> dict[str, list[int]]:
        try:
            return dict(json.loads(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}

    def _write(self, passed: dict[str, list[int]]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(passed, indent=1), encoding="utf-8")
        fresh.replace(self._path)


def get_commit() -> str:
    """The commit that is tested; with a plus where files differ from it."""
    try:
        commit = _git("rev-parse", "--short=10", "HEAD")
        return commit + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, text=True).stdout.strip()
