"""Who holds a lease: this process, told apart from a later one that got the same number."""

from __future__ import annotations

import os
import socket

import psutil


def this_process() -> str:
    """A name for this process: host, process id, time of its start."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{os.getpid()}:{process.create_time():.2f}"


def is_dead(owner: str) -> bool:
    """Whether ``owner`` was a process of this host that has ended. Of other hosts we cannot know: False."""
    host, _, rest = owner.partition(":")
    pid, _, created = rest.partition(":")
    if host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        process = psutil.Process(int(pid))
        return f"{process.create_time():.2f}" != created or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
