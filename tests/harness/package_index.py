"""A package index on loopback with what the tests' own environment holds, so that pip installs without the Internet.

Its wheels are put together anew from the files that are installed here: the versions are those of the lock, the bytes
of the archives are not, and so their hashes differ from the lock's. ``rehashed`` writes the lock for them. That the
lock's own hashes are right is not shown by these archives but by this environment: `make` installs it with
``--require-hashes`` from a lock that allows the same ones.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from functools import cache
from importlib.metadata import distribution

_ENTRY = re.compile(
    r"^(?P<name>[a-z0-9._-]+)==(?P<version>[^ ;\\]+)(?P<marker>[^\\\n]*)\\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE
)


@cache
def make_index(lock: str) -> dict[str, bytes]:
    """The pages and files of an index with all that a lock names, by their paths."""
    files = {}
    for entry in _ENTRY.finditer(lock):
        name, content = _wheel(entry["name"], entry["version"])
        files[f"/packages/{name}"] = content
        files[f"/simple/{entry['name']}/"] = f'<a href="/packages/{name}">{name}</a>'.encode()
    return files


def rehashed(lock: str) -> str:
    """The lock with the hashes of this index's files in place of its own."""

    def replace(entry: re.Match[str]) -> str:
        _, content = _wheel(entry["name"], entry["version"])
        digest = hashlib.sha256(content).hexdigest()
        return f"{entry['name']}=={entry['version']}{entry['marker']}\\\n    --hash=sha256:{digest}\n"

    return _ENTRY.sub(replace, lock)


def hashes_of(lock: str) -> dict[str, set[str]]:
    """The hashes that a lock allows, by name and version."""
    return {
        f"{entry['name']}=={entry['version']}": set(re.findall(r"sha256:[0-9a-f]{64}", entry[0]))
        for entry in _ENTRY.finditer(lock)
    }


@cache
def _wheel(name: str, version: str) -> tuple[str, bytes]:
    installed = distribution(name)
    assert installed.version == version, f"the lock has {name} {version}, this environment {installed.version}"
    tag = re.search(r"^Tag: (\S+)$", installed.read_text("WHEEL") or "", re.MULTILINE)
    assert tag
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        for file in sorted(installed.files or (), key=str):
            # Programs lie outside, and what was compiled here is not part of any wheel.
            if ".." not in file.parts and "__pycache__" not in file.parts:
                wheel.writestr(zipfile.ZipInfo(str(file)), file.read_binary())
    return f"{name.replace('-', '_')}-{version}-{tag[1]}.whl", content.getvalue()
