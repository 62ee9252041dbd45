"""How the agent of a joined machine is kept running: as a service of systemd, or as a process of whoever joined it."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNIT = "lablink-agent.service"
_UNITS = Path("/etc/systemd/system")
# Not without a token: a machine that was removed from its pool has none, and its agent need not ask.
_UNIT = """\
[Unit]
Description=LabLink agent
Wants=network-online.target
After=network-online.target docker.service
ConditionPathExists={token}
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh {script}
Restart=on-failure
RestartSec=10
KillMode=process

[Install]
WantedBy=multi-user.target
"""
_SCRIPT = """\
#!/bin/sh
# Runs LabLink's agent on this machine.
{environment}exec {command}
"""
# Status 0 is an agent that was told to end; any other comes again (75: it asks to).
_AGAIN = """\
trap 'kill "$agent"; wait "$agent"; exit 0' TERM INT HUP
while :; do
    /bin/sh "$1" & agent=$!
    wait "$agent" && exit 0
    sleep 5 & agent=$!
    wait "$agent"
done
"""


@dataclass(frozen=True)
class Kept:
    """An agent: its files, and its command line with what that needs in its environment."""

    directory: Path
    home: Path
    command: Sequence[str]
    environment: Mapping[str, str]

    def write_script(self) -> Path:
        """Writes how it is started."""
        script = self.directory / "run.sh"
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.environment.items())
        script.write_text(_SCRIPT.format(environment=exports, command=shlex.join(self.command)), encoding="utf-8")
        script.chmod(0o700)
        return script


def keep_as_unit(kept: Kept) -> str:
    """Starts it now and with the machine. Returns how, for people.

    Raises:
        OSError: systemd does not take it; says why.
    """
    script, token = kept.write_script(), kept.home / "agent.token"
    unit = _UNIT.format(script=_escaped(script), token=_escaped(token))
    (_UNITS / UNIT).write_text(unit, encoding="utf-8")
    for words in (("daemon-reload",), ("enable", UNIT), ("restart", UNIT)):
        done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"systemctl {' '.join(words)}: {done.stderr.strip()}")
    return f"The agent is a service that starts with this machine: systemctl status {UNIT}, journalctl -u {UNIT}."


def keep_as_process(kept: Kept) -> str:
    """Starts it as a process that outlives this one. Returns how, for people."""
    script, log = kept.write_script(), kept.directory / "agent.log"
    with log.open("ab") as written:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _AGAIN, "lablink-agent", str(script)],
            cwd=kept.directory,
            env=passed_environment(),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    (kept.directory / "agent.pid").write_text(f"{process.pid}\n", encoding="utf-8")
    return (
        f"The agent is process {process.pid}; it writes {log}. It is no service: after this machine was switched off,\n"
        f"start it again by: nohup sh {shlex.quote(str(script))} &\n"
        f"To end it: kill {process.pid}"
    )


def passed_environment() -> dict[str, str]:
    """Ours without what only we were started with: the wheel as a place of modules, and whatever is LabLink's."""
    ours = ("PYTHONPATH", "LABLINK_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%").replace("\\", "\\\\").replace(" ", "\\x20")
