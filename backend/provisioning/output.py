"""What Terraform says with ``-json``, line by line.

The format: developer.hashicorp.com/terraform/internals/machine-readable-ui.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from backend.states import ProgressState

# The resource that is the VM itself, in every module of ours; what else belongs to a VM is not its progress.
VM_RESOURCE = "vm"
_STATES = {
    "apply_start": ProgressState.RUNNING,
    "apply_progress": ProgressState.RUNNING,
    "apply_complete": ProgressState.DONE,
    "apply_errored": ProgressState.FAILED,
}


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One line. ``hostname`` and ``state`` are set where it tells of progress with a VM; ``elapsed_s`` in seconds."""

    at: datetime
    level: str
    message: str
    hostname: str | None = None
    state: ProgressState | None = None
    action: str | None = None
    elapsed_s: float = 0.0
    is_error: bool = False


def parse_line(raw: str, *, redact: Sequence[str] = ()) -> OutputLine | None:
    """The line as we store it, with every string of ``redact`` struck out. None for lines that say nothing."""
    for secret in redact:
        raw = raw.replace(secret, "[secret]")
    try:
        said = json.loads(raw)
    except ValueError:
        return OutputLine(datetime.now(UTC), "info", raw.strip()[:4_000]) if raw.strip() else None
    if not isinstance(said, dict) or said.get("type") in {"version", "outputs"}:
        return None
    return _line(said)


def _line(said: dict[str, Any]) -> OutputLine:
    kind, hook = said.get("type", ""), said.get("hook") or {}
    resource = hook.get("resource") or {}
    is_vm = resource.get("resource_name") == VM_RESOURCE and kind in _STATES
    key = resource.get("resource_key")
    message, level = str(said.get("@message", "")), str(said.get("@level", "info"))
    diagnostic = said.get("diagnostic") or {}
    if diagnostic.get("detail"):
        message = f"{message}: {' '.join(str(diagnostic['detail']).split())}"
    return OutputLine(
        at=_time(said.get("@timestamp")),
        level=level,
        message=message[:4_000],
        hostname=str(key) if is_vm and key is not None else _host_of(diagnostic),
        state=_STATES[kind] if is_vm else None,
        action=str(hook.get("action")) if is_vm else None,
        elapsed_s=float(hook.get("elapsed_seconds") or 0),
        is_error=level == "error",
    )


def _host_of(diagnostic: dict[str, Any]) -> str | None:
    """The VM that a diagnostic is about: the key in an address such as ``terraform_data.vm["gpu-001"]``."""
    _, _, rest = str(diagnostic.get("address", "")).partition('["')
    return rest.partition('"]')[0] or None


def _time(stamp: object) -> datetime:
    try:
        return datetime.fromisoformat(str(stamp))
    except ValueError:
        return datetime.now(UTC)
