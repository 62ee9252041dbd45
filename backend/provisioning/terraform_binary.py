"""Which Terraform to run: the one on the PATH if it is new enough, else a pinned release in the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import zipfile
from pathlib import Path

import requests

from backend.errors import LabLinkError
from backend.settings import TERRAFORM_VERSION

OLDEST = (1, 9)
RELEASES = "https://releases.hashicorp.com/terraform"
# SHA-256 of the archives of TERRAFORM_VERSION, as HashiCorp published them beside the release.
CHECKSUMS = {
    "linux_amd64": "1ce994251c00281d6845f0f268637ba50c0005657eb3cf096b92f753b42ef4dc",
    "linux_arm64": "a43d1d0da9b9bab214a8305a39db0e40869572594ccf50c416a7756499143633",
    "darwin_amd64": "a56d5002b9f7647291faccc3dd1a70350e60fb61e4c45037629508b8fdc2575b",
    "darwin_arm64": "867e0808fa971217043e25b7a792b10720c79b1546f8a68479b74f138be73e18",
}
_HINT = "Install Terraform 1.9 or newer (developer.hashicorp.com/terraform/install) and start again."


class TerraformMissing(LabLinkError):
    """There is no Terraform that can be used; says why and what to do."""

    code = "terraform_missing"


async def ensure_terraform(
    home: Path,
    *,
    download: bool,
    oldest: tuple[int, int] = OLDEST,
    releases: str = RELEASES,
    path: str | None = None,
) -> Path:
    """The Terraform to run, ``oldest`` or newer, fetched into ``home`` if need be. ``path`` stands in for the PATH.

    Raises:
        TerraformMissing: none is there and none could be fetched.
    """
    return await asyncio.to_thread(_ensure, home, download, oldest, releases, path)


def _ensure(home: Path, download: bool, oldest: tuple[int, int], releases: str, path: str | None) -> Path:  # noqa: FBT001 - private
    installed = shutil.which("terraform", path=path)
    if installed and _version(Path(installed)) >= oldest:
        return Path(installed)
    fetched = home / "terraform" / TERRAFORM_VERSION / "terraform"
    if fetched.exists():
        return fetched
    lack = (
        f"{installed} is not Terraform {oldest[0]}.{oldest[1]} or newer"
        if installed
        else "There is no Terraform on the PATH"
    )
    if not download:
        raise TerraformMissing(f"{lack}, and terraform.download is false. {_HINT}")
    _fetch(fetched, releases, lack)
    return fetched


def _version(binary: Path) -> tuple[int, ...]:
    """Major and minor, or zero for what is no working Terraform."""
    try:
        said = subprocess.run(
            [binary, "version", "-json"],
            capture_output=True,
            timeout=20,
            check=True,
            env={**os.environ, "CHECKPOINT_DISABLE": "1"},
        )
        version = str(json.loads(said.stdout)["terraform_version"])
        return tuple(int(part) for part in version.split("-", maxsplit=1)[0].split(".")[:2])
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return (0,)


def _fetch(target: Path, releases: str, lack: str) -> None:
    archive = f"terraform_{TERRAFORM_VERSION}_{_platform()}.zip"
    expected = CHECKSUMS.get(_platform())
    if expected is None:
        raise TerraformMissing(f"{lack}, and there is none to fetch for {_platform()}. {_HINT}")
    try:
        content = _get(f"{releases}/{TERRAFORM_VERSION}/{archive}")
    except requests.RequestException as exc:
        why = f"HTTP {exc.response.status_code}" if exc.response is not None else type(exc).__name__
        raise TerraformMissing(f"{lack}, and {TERRAFORM_VERSION} could not be fetched: {why}. {_HINT}") from exc
    if hashlib.sha256(content).hexdigest() != expected:
        raise TerraformMissing(f"The fetched {archive} does not match its checksum; it was thrown away. {_HINT}")
    temporary = target.with_suffix(f".{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            temporary.write_bytes(zipped.read("terraform"))
        temporary.chmod(0o755)
        temporary.replace(target)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise TerraformMissing(f"Terraform could not be written to {target}: {exc.strerror}. {_HINT}") from exc


def _get(url: str) -> bytes:
    response = requests.get(url, timeout=(10, 120))
    response.raise_for_status()
    return response.content


def _platform() -> str:
    machine = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(
        platform.machine().lower(), "unknown"
    )
    return f"{platform.system().lower()}_{machine}"
