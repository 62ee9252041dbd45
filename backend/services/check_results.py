"""What an agent tells of a pool's check command: bounded and without secrets before anything of it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.services.log_text import MAX_LINE, keep_lines

MAX_LINES, MAX_SAID = 20, 300


def tidy_check(data: Mapping[str, Any]) -> dict[str, Any]:
    """``exit_status`` (None: ended at its deadline, or not told) and the last ``lines``, whatever came."""
    status, lines = data.get("exit_status"), data.get("lines")
    is_status = isinstance(status, int) and not isinstance(status, bool) and abs(status) < 2**31
    told = [line[: 4 * MAX_LINE] for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
    kept, _ = keep_lines(told[-MAX_LINES:])
    return {"exit_status": status if is_status else None, "lines": [line[:MAX_SAID] for line in kept]}
