"""The workload's container: the researcher's side of a machine, apart from the agent and its token."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 10.0
# Where the repository lies within the container.
WORKLOAD = "/workload"
# Who made a container: the data directory of its agent.
LABEL = "lablink.agent"
_FORMAT = (
    f'{{{{.Id}}}}|{{{{index .Config.Labels "{LABEL}"}}}}|'
    '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}'
)
_NVIDIA = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True)
class Container:
    """A container that exists."""

    image: str
    state: str

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state == "running"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which container it is. ``made_by``: the data directory of the agent that made it; ``volumes`` are its own."""

    id: str
    made_by: str
    volumes: tuple[str, ...] = ()


class DockerAway(Exception):
    """Docker is not installed or does not answer; the message is for people."""


def look_at_container(name: str) -> Container | None:
    """The container of this name, if there is one.

    Raises:
        DockerAway: nobody knows.
    """
    said = _ask("inspect", "--format", "{{.State.Status}} {{.Config.Image}}", name)
    if said is None:
        return None
    state, _, image = said.partition(" ")
    return Container(image, state)


def identify_container(name: str) -> Identity | None:
    """Which container bears this name, if one does.

    Raises:
        DockerAway: nobody knows.
    """
    said = _ask("inspect", "--format", _FORMAT, name)
    if said is None:
        return None
    number, _, rest = said.partition("|")
    made_by, _, volumes = rest.rpartition("|")
    return Identity(number, made_by, tuple(volumes.split()))


def list_volumes(names: Sequence[str]) -> list[str]:
    """Those of these volumes that exist.

    Raises:
        DockerAway: nobody knows.
    """
    return [name for name in names if _ask("volume", "inspect", "--format", "{{.Name}}", name) is not None]


def _ask(*words: str) -> str | None:
    """What docker says, or None if it says that there is no such thing."""
    docker = shutil.which("docker")
    if docker is None:
        raise DockerAway("docker is not installed")
    try:
        done = subprocess.run([docker, *words], capture_output=True, text=True, timeout=LOOK_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        raise DockerAway(f"docker does not answer: {type(exc).__name__}") from exc
    return done.stdout.strip() if done.returncode == 0 else None


def find_container(name: str) -> Container | None:
    """The container of this name; None as well while nobody knows: what comes next says why."""
    try:
        return look_at_container(name)
    except DockerAway:
        return None


def list_run_arguments(name: str, image: str, workload: Path) -> list[str]:
    """Docker's arguments for a container that comes back with the machine, sees its GPUs and holds the repository.

    With a terminal of its own, so that an image whose command is a shell stays.
    """
    gpus = ["--gpus", "all"] if _NVIDIA.exists() else []
    kept = ["--restart", "unless-stopped", "--init", "--interactive", "--tty"]
    mount = ["--volume", f"{workload}:{WORKLOAD}", "--workdir", WORKLOAD]
    label = ["--label", f"{LABEL}={workload.parent}"]
    return ["run", "--detach", "--name", name, *label, *kept, *gpus, *mount, image]
