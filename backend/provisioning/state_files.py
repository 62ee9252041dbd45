"""Terraform's states as files in a pool's directory: the present one and those that the runner kept aside."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STATE = "terraform.tfstate"
# Where Terraform notes which backend, and which of its workspaces, a directory was made ready for.
_BACKEND, _WORKSPACE = Path(".terraform", STATE), Path(".terraform", "environment")
# States kept aside, beside Terraform's own backup.
KEPT = 5
# The form of states that Terraform has written since 0.12.
_FORM = 4
# None: there is none.
Content = bytes | None


@dataclass(frozen=True, slots=True)
class StateFile:
    """A state that can be downloaded; ``size`` in bytes."""

    name: str
    at: datetime
    size: int
    is_current: bool


def list_state_files(directory: Path) -> list[StateFile]:
    """The state and what was kept of former ones, the newest first."""
    found = []
    for path in directory.glob(f"{STATE}*"):
        if path.is_file() and not path.name.endswith(".new"):
            stat = path.stat()
            at = datetime.fromtimestamp(stat.st_mtime, UTC)
            found.append(StateFile(path.name, at, stat.st_size, is_current=path.name == STATE))
    return sorted(found, key=lambda each: (not each.is_current, -each.at.timestamp(), each.name))


def read_state_file(directory: Path, name: str | None = None) -> Content:
    """One of those listed; None where there is none of this name."""
    path = directory / (name or STATE)
    if path.parent != directory or not path.name.startswith(STATE) or not path.is_file():
        return None
    return path.read_bytes()


def put_state_file_aside(directory: Path, suffix: str) -> None:
    """Moves a state that cannot be used out of the way, beside where it was."""
    state = directory / STATE
    if state.exists():
        state.replace(directory / f"{STATE}.{suffix}")


def keep_state(directory: Path) -> None:
    """Keeps the last few states aside: cheap, and the only way back from a state that was damaged."""
    state = directory / STATE
    if not state.exists():
        return
    for number in range(KEPT, 1, -1):
        older = directory / f"{STATE}.{number - 1}"
        if older.exists():
            older.replace(directory / f"{STATE}.{number}")
    shutil.copyfile(state, directory / f"{STATE}.1")


def bring_back_state(directory: Path) -> bool:
    """Brings back the state before the last run, if that was killed while it wrote its own. Whether it did.

    Terraform empties the file before it writes a state: killed in between, it would take the pool for empty. What it
    kept aside before its first write is the state before that run.
    """
    state, before = directory / STATE, directory / f"{STATE}.backup"
    if not state.exists() or state.stat().st_size:
        return False
    if not (before.exists() and before.stat().st_size):
        state.unlink()
        return False
    shutil.copyfile(before, state)
    return True


def read_own_state(directory: Path) -> dict[str, Any] | None:
    """The state of a directory that keeps it as a file, empty where there is none yet.

    None: it is kept elsewhere, or it is not as we know it; Terraform itself has to be asked.
    """
    try:
        if (directory / _WORKSPACE).exists() or _backend(directory) not in {None, "local"}:
            return None
        return parse_known_state((directory / STATE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        return None


def parse_known_state(content: bytes) -> dict[str, Any] | None:
    """A state as Terraform writes it; None where it is not as we know it."""
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return state if isinstance(state, dict) and state.get("version") == _FORM else None


def _backend(directory: Path) -> str | None:
    try:
        noted = json.loads((directory / _BACKEND).read_bytes())
    except FileNotFoundError:
        return None
    if not isinstance(noted, dict):
        return "unknown"
    return (noted.get("backend") or {}).get("type")
