"""What a cloud VM is told at its birth: a script, small and almost without secrets, that brings the agent up.

All else comes later and from the server itself: the agent enrols, then asks for the repository and the startup script
of its pool (``GET /api/preparation``). So a password in a repository's address is never in user_data, which anybody on
the machine can read, and a long startup script fits.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from backend.errors import InvalidInput
from backend.provisioning.agent_package import AgentPackage

# EC2's own limit (before base64), and the lowest among the clouds.
MAX_BYTES = 16_384
_TEMPLATE = Path(__file__).with_name("boot.sh")


class UserDataTooLarge(InvalidInput):
    """The script of a machine would not fit into what the cloud takes."""

    code = "user_data_too_large"


@dataclass(frozen=True, slots=True)
class Boot:
    """One machine's birth.

    ``hostname``: the VM's name in LabLink. ``server_url``: where agents reach the server, ``settings.public_url``.
    ``enrolment_token``: a fresh one for this VM; works once, and is the only secret. ``agent``: what is installed,
    ``agent_package()``. ``image``: the workload's container image; None for a machine without a container. ``is_spot``:
    the cloud may take it away, and says so within the machine.
    """

    hostname: str
    server_url: str
    enrolment_token: str
    agent: AgentPackage
    image: str | None = None
    is_spot: bool = False


def render_user_data(boot: Boot) -> str:
    """The script for cloud-init (user_data as text; base64 is the caller's or the provider's). Below 16,384 bytes.

    Raises:
        UserDataTooLarge: it is not, because of what ``boot`` holds.
    """
    script = _TEMPLATE.read_text(encoding="utf-8")
    values = {
        "server_url": boot.server_url.rstrip("/"),
        "hostname": boot.hostname,
        "enrolment_token": boot.enrolment_token,
        "wheel": boot.agent.wheel_name,
        "wheel_sha256": boot.agent.wheel_sha256,
        "requirements_sha256": boot.agent.requirements_sha256,
        "image": boot.image or "",
        "spot": "1" if boot.is_spot else "",
    }
    for name, value in values.items():
        assert script.count(f"\n{name}=''\n") == 1, name
        script = script.replace(f"\n{name}=''\n", f"\n{name}={shlex.quote(value)}\n")
    size = len(script.encode())
    if size >= MAX_BYTES:
        raise UserDataTooLarge(
            f"The boot script of {boot.hostname} would have {size:,} bytes; a cloud takes fewer than {MAX_BYTES:,}. "
            "Shorten server.public_url or the pool's image."
        )
    return script
