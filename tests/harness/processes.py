"""What really runs on this machine for one data directory: the process table is the only witness."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil


def list_processes(home: Path, name: str = "") -> list[psutil.Process]:
    """The living processes that work under ``home``, whoever started them: those called ``name``, or all."""
    root = str(home.resolve())
    return [
        process
        for process in psutil.process_iter(["name", "cwd", "cmdline"])
        # A zombie has neither a command line nor a directory.
        if name in {"", process.info["name"]}
        and (_is_in(process.info["cwd"], root) or any(_is_in(word, root) for word in process.info["cmdline"] or ()))
    ]


def find_postmaster(home: Path) -> psutil.Process | None:
    """The embedded Postgres of this data directory."""
    postgres = list_processes(home, "postgres")
    return next((process for process in postgres if "-D" in process.info["cmdline"]), None)


def is_told_to_stop(process: psutil.Process) -> bool:
    """Whether a SIGINT waits for a suspended process (``ShdPnd`` of proc_pid_status(5): a mask in hexadecimal)."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    (pending,) = (line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending, 16) & 1 << (signal.SIGINT - 1))


def _is_in(path: str | None, root: str) -> bool:
    return path is not None and (path == root or path.startswith(f"{root}/"))
