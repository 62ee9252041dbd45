"""The crontab of the agent's own user: looked at, never touched."""

from __future__ import annotations

import hashlib
import shutil
import subprocess

# Beside what else is recorded of a session: how the crontab was when it began.
CRONTAB = "crontab"
LOOK_S = 10.0


def find_crontab_state() -> str | None:
    """A sign of what is in it, the same for the same content; None where nobody knows."""
    crontab = shutil.which("crontab")
    if crontab is None:
        return None
    try:
        done = subprocess.run(
            [crontab, "-l"], stdin=subprocess.DEVNULL, capture_output=True, timeout=LOOK_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    # One that is not there is said on the other channel, and by the status.
    return hashlib.sha256(done.stdout).hexdigest()
