"""Who waits when this computer is busy: what makes machines, and those that run here; never the pages."""

from __future__ import annotations

import contextlib
from pathlib import Path

# Twenty Pythons that start at once on a laptop must not make the server's pages wait.
NICENESS = 10


def yield_to_pages(session: int) -> None:
    """Lets a session, named by the id of its first process, have less of this computer than others.

    Where Linux shares by session (sched(7), "The autogroup feature"), the niceness of a process counts only within its
    own; elsewhere this does nothing. May not be asked for more than ten times a second, unless by root.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{session}/autogroup").write_text(str(NICENESS), encoding="ascii")
