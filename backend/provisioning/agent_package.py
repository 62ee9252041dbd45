"""The agent as machines install it: a wheel of this installation's own ``agent`` package, and its locked requirements.

The wheel is put together here, without any build tool, so that what machines run is what this server was tested with,
and no package index needs to know us. It is the same to the last byte wherever the same version runs (nothing is
compressed, no date is real): several servers give out one SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shlex
import zipfile
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import metadata
from importlib.util import find_spec
from pathlib import Path

from backend.resources import requirements_dir

REQUIREMENTS_NAME = "requirements.txt"
# The earliest that a zip file can hold.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_FILE_MODE = 0o644 << 16


@dataclass(frozen=True, slots=True)
class AgentPackage:
    """The wheel and the lock of its requirements, each with its SHA-256 as hexadecimal digits."""

    wheel_name: str
    wheel: bytes = field(repr=False)
    wheel_sha256: str
    requirements: bytes = field(repr=False)
    requirements_sha256: str


@cache
def agent_package() -> AgentPackage:
    """The agent of this installation; built at the first call."""
    version = metadata("lablink")["Version"]
    name, wheel = f"lablink-{version}-py3-none-any.whl", _build_wheel(version)
    requirements = _read_requirements()
    return AgentPackage(name, wheel, _sha256(wheel), requirements, _sha256(requirements))


def join_line(server_url: str, token: str) -> str:
    """The line that makes a Linux machine join: it fetches the wheel, checks it, and only then runs what is in it."""
    package = agent_package()
    name, url = package.wheel_name, shlex.quote(f"{server_url}/agent/{package.wheel_name}")
    return (
        f"curl -fsSO {url} && echo '{package.wheel_sha256}  {name}' | sha256sum -c --quiet && "
        f"LABLINK_ENROLMENT_TOKEN={shlex.quote(token)} PYTHONPATH={name} "
        f"python3 -m agent.join {shlex.quote(server_url)}"
    )


def _build_wheel(version: str) -> bytes:
    info = f"lablink-{version}.dist-info"
    files = _read_sources() | {
        # Within as well: whoever has checked the wheel has checked this.
        "agent/requirements.txt": _read_requirements(),
        f"{info}/METADATA": _metadata(version),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: lablink\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": b"[console_scripts]\nlablink = agent.__main__:lablink\n",
        f"{info}/top_level.txt": b"agent\n",
    }
    record = f"{info}/RECORD"
    rows = [f"{name},sha256={_record_hash(content)},{len(content)}" for name, content in sorted(files.items())]
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as wheel:
        # The format wants dist-info at the end.
        for name in sorted(files, key=lambda name: (name.startswith(info), name == record, name)):
            entry = zipfile.ZipInfo(name, _NO_DATE)
            entry.external_attr, entry.create_system = _FILE_MODE, 3
            wheel.writestr(entry, files[name])
    return archive.getvalue()


def _read_sources() -> dict[str, bytes]:
    spec = find_spec("agent")
    assert spec
    assert spec.origin
    package = Path(spec.origin).parent
    return {f"agent/{path.relative_to(package).as_posix()}": path.read_bytes() for path in package.rglob("*.py")}


def _read_requirements() -> bytes:
    return (requirements_dir() / "agent.txt").read_bytes()


def _metadata(version: str) -> bytes:
    ours = metadata("lablink")
    plain = [each for each in ours.get_all("Requires-Dist") or [] if "extra ==" not in each]
    lines = ["Metadata-Version: 2.1", "Name: lablink", f"Version: {version}", f"Summary: {ours['Summary']}"]
    lines += [f"Requires-Python: {ours['Requires-Python']}", *(f"Requires-Dist: {each}" for each in sorted(plain))]
    return "\n".join([*lines, ""]).encode()


def _record_hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
