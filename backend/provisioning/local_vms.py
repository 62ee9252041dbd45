"""Local VMs: an agent process each, with a directory of its own. Terraform calls this as a command; the provider too.

The process table is the only truth about what runs: a VM's agent is known by the ``--home`` on its command line, so
that nothing is lost track of when any of the processes involved is killed between two steps.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import psutil

from backend.provisioning.priority import NICENESS, yield_to_pages

HOSTNAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
STOP_GRACE_S = 5.0
CLEAR_S = 60.0
LOOK_S = 0.02
MAX_LOG_BYTES = 1_000_000
REMOVED = ".removed"
# In the environment of a VM's agent and so of what it starts: whatever bears it ends with the VM.
MARK = "LABLINK_LOCAL_VM"
_PASSED = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "PYTHONPATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class LocalVms:
    """The local VMs under one directory."""

    root: Path

    def start(self, hostname: str, *, server_url: str, token: str | None, options: dict[str, str]) -> int:
        """Ensures that the VM's agent runs; one that runs already is adopted as it is. Returns its process id.

        ``options`` are further variables of the agent's environment. What is given is kept for later power-ons.
        """
        directory = self._directory(hostname)
        while True:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(directory) as is_there:
                # Else it was removed between the two: once more.
                if is_there:
                    _write(directory / "vm.json", {"server_url": server_url, "token": token, "options": options})
                    return self._ensure_running(hostname)

    def power_on(self, hostname: str) -> int | None:
        """Starts the agent of a VM that exists (a new boot). None if there is no such VM here."""
        directory = self._directory(hostname)
        with _locked(directory) as is_there:
            return self._ensure_running(hostname) if is_there and (directory / "vm.json").exists() else None

    def power_off(self, hostname: str) -> None:
        """Ends the agent and all that it started; the VM's directory stays."""
        with _locked(self._directory(hostname)):
            self._end(hostname)
            self._clear_sessions(hostname, "end")

    def stop(self, hostname: str) -> None:
        """Removes the VM: all its processes and its directory. What is not there is no error."""
        directory = self._directory(hostname)
        while True:
            with _locked(directory) as is_there:
                if is_there:
                    self._end(hostname)
                    self._clear_sessions(hostname, "remove")
                    self._remove(directory)
                    return
            if hostname not in self.list_running():
                return
            # Its directory was taken away by hand; what has none cannot be locked.
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def list_running(self) -> dict[str, int]:
        """The process id of every agent that runs under this root, by hostname."""
        running = {}
        # A zombie has no command line.
        for process in psutil.process_iter(["cmdline"]):
            home = _home_of(process.info["cmdline"] or [])
            if home is None or home.name != "home" or home.parent.parent != self.root:
                continue
            if HOSTNAME.fullmatch(home.parent.name):
                running[home.parent.name] = process.pid
        return running

    def list_existing(self) -> list[str]:
        """The hostnames of all VMs that have a directory here."""
        found = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(path.name for path in found if path.is_dir() and HOSTNAME.fullmatch(path.name))

    def _directory(self, hostname: str) -> Path:
        if not HOSTNAME.fullmatch(hostname):
            raise ValueError(f"not a hostname: {hostname!r}")
        return self.root / hostname

    def _remove(self, directory: Path) -> None:
        # Out of the way first, in one step: else a start in the middle would find half of it.
        directory.rename(self.root / f".{directory.name}.{uuid.uuid4()}{REMOVED}")
        for removed in self.root.glob(f".*{REMOVED}"):
            shutil.rmtree(removed, ignore_errors=True)

    def _ensure_running(self, hostname: str) -> int:
        running = self.list_running().get(hostname)
        if running is not None:
            return running
        directory = self._directory(hostname)
        kept = json.loads((directory / "vm.json").read_text(encoding="utf-8"))
        log = directory / "agent.log"
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            log.replace(directory / "agent.log.old")
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "agent", "--hostname", hostname, "--home", str(directory / "home")],
                cwd=directory,
                env={**_environment(kept), MARK: str(directory)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        yield_to_pages(process.pid)
        with contextlib.suppress(psutil.Error, OSError):
            started = psutil.Process(process.pid)
            started.nice(max(started.nice(), NICENESS))
            # Not before it can be found: for the first moment of a program's life its command line is empty.
            while process.poll() is None and _home_of(started.cmdline()) is None:
                time.sleep(LOOK_S)
        return process.pid

    def _end(self, hostname: str) -> None:
        pid = self.list_running().get(hostname)
        if pid is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                process.terminate()
                if not _has_ended(process):
                    process.kill()
                    _has_ended(process)
        directory = self._directory(hostname)
        for process in [each for each in psutil.process_iter() if _belongs(each, directory)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                _has_ended(process)

    def _clear_sessions(self, hostname: str, verb: str) -> None:
        """Ends, or removes, the sessions that have a user of their own: they are not at home in the VM's directory."""
        home = self._directory(hostname) / "home"
        if not (home / "sessions").is_dir() or not any((home / "sessions").iterdir()):
            return
        command = [sys.executable, "-m", "agent.leftovers", verb, str(home)]
        environment = {key: os.environ[key] for key in _PASSED if key in os.environ}
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=CLEAR_S, check=False)


def main(verb: str) -> int:
    """The command that Terraform's local-exec runs; all it needs is in the environment."""
    vms, hostname = LocalVms(Path(os.environ["LABLINK_VMS_ROOT"])), os.environ["LABLINK_VM"]
    if verb == "start":
        inputs = json.loads(Path(os.environ["LABLINK_VM_INPUTS"]).read_text(encoding="utf-8"))
        token = inputs["tokens"].get(hostname)
        pid = vms.start(hostname, server_url=inputs["server_url"], token=token, options=inputs["options"])
        print(f"{hostname} runs as process {pid}")
    elif verb == "power-on":
        print(f"{hostname} runs as process {vms.power_on(hostname)}")
    else:
        vms.stop(hostname)
        print(f"{hostname} has ended")
    return 0


def _environment(kept: dict[str, object]) -> dict[str, str]:
    environment = {key: os.environ[key] for key in _PASSED if key in os.environ}
    options = kept.get("options")
    if isinstance(options, dict):
        environment.update({str(key): str(value) for key, value in options.items()})
    if kept.get("token"):
        environment["LABLINK_ENROLMENT_TOKEN"] = str(kept["token"])
    environment["LABLINK_LOG_FORMAT"] = "json"
    environment["LABLINK_SERVER_URL"] = str(kept["server_url"])
    environment["LABLINK_BOOT_ID"] = str(uuid.uuid4())
    return environment


def _has_ended(process: psutil.Process) -> bool:
    """Waits for the end. A zombie has ended: whether somebody has buried it yet is not our business."""
    end = time.monotonic() + STOP_GRACE_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > end:
            return False
        time.sleep(LOOK_S)
    return True


def _home_of(cmdline: list[str]) -> Path | None:
    if "agent" not in cmdline or "--home" not in cmdline[:-1]:
        return None
    return Path(cmdline[cmdline.index("--home") + 1])


def _belongs(process: psutil.Process, directory: Path) -> bool:
    """Whether a process is part of the VM: marked as such, or at home in its directory (a researcher's session)."""
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False
    return environment.get(MARK) == str(directory) or Path(environment.get("HOME", "/")).is_relative_to(directory)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """One at a time for each VM, across processes; the lock ends with whoever holds it. False: there is no such VM."""
    while (file := _open_lock(directory)) is not None:
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever held it may have removed the VM meanwhile, and the file with it.
            if _is_at(directory / "lock", file):
                yield True
                return
    yield False


def _is_at(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _open_lock(directory: Path) -> TextIO | None:
    try:
        return (directory / "lock").open("w")
    except FileNotFoundError:
        return None


def _write(path: Path, content: dict[str, object]) -> None:
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
