"""The workload's container: the researcher's side of a machine, apart from the agent and its token."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 10.0
# Where the repository lies within the container.
WORKLOAD = "/workload"
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


class DockerAway(Exception):
    """Docker is not installed or does not answer; the message is for people."""


def look_at_container(name: str) -> Container | None:
    """The container of this name, if there is one.

    Raises:
        DockerAway: nobody knows.
    """
    docker = shutil.which("docker")
    if docker is None:
        raise DockerAway("docker is not installed")
    command = [docker, "inspect", "--format", "{{.State.Status}} {{.Config.Image}}", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOOK_S, check=False)
    except (OSError, subprocess.SubprocessError) as exc:
        raise DockerAway(f"docker does not answer: {type(exc).__name__}") from exc
    state, _, image = done.stdout.strip().partition(" ")
    return Container(image, state) if done.returncode == 0 else None


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
    return ["run", "--detach", "--name", name, *kept, *gpus, *mount, image]
