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
MAX_MESSAGE, MAX_S = 4_000, 1e9
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
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        # Not of the format: a message of Terraform's own, or of something beneath it.
        return OutputLine(datetime.now(UTC), "info", _storable(raw.strip())) if raw.strip() else None
    return None if said.get("type") in ("version", "outputs") else _line(said)


def _line(said: dict[str, Any]) -> OutputLine:
    kind, hook = str(said.get("type")), _object(said.get("hook"))
    resource, diagnostic = _object(hook.get("resource")), _object(said.get("diagnostic"))
    is_vm = resource.get("resource_name") == VM_RESOURCE and kind in _STATES
    key, elapsed_s = resource.get("resource_key"), hook.get("elapsed_seconds")
    message, level = str(said.get("@message", "")), str(said.get("@level", "info"))
    if diagnostic.get("detail"):
        message = f"{message}: {' '.join(str(diagnostic['detail']).split())}"
    return OutputLine(
        at=_time(said.get("@timestamp")),
        level=_storable(level),
        message=_storable(message),
        hostname=str(key) if is_vm and key is not None else _host_of(diagnostic),
        state=_STATES[kind] if is_vm else None,
        action=str(hook.get("action")) if is_vm else None,
        elapsed_s=float(elapsed_s) if isinstance(elapsed_s, int | float) and 0 <= elapsed_s < MAX_S else 0.0,
        is_error=level == "error",
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _storable(text: str) -> str:
    """Cut to size, and without what Postgres cannot hold: one such line would keep a whole run from being stored."""
    return text.replace("\x00", "")[:MAX_MESSAGE].encode(errors="replace").decode()


def _host_of(diagnostic: dict[str, Any]) -> str | None:
    """The VM that a diagnostic is about: the key in an address such as ``terraform_data.vm["gpu-001"]``."""
    _, _, rest = str(diagnostic.get("address", "")).partition('["')
    return rest.partition('"]')[0] or None


def _time(stamp: object) -> datetime:
    try:
        at = datetime.fromisoformat(str(stamp))
    except ValueError:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
