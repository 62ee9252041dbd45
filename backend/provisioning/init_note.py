"""Whether a directory is as `terraform init` left it: then another one would take seconds and change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from backend.provisioning.state_files import STATE

# Within Terraform's own folder: whoever removes that has it installed anew.
_NOTE = Path(".terraform", "lablink.ready")
_LOCK = ".terraform.lock.hcl"


@dataclass(frozen=True)
class InitNote:
    """What the last init in ``directory`` was made of. ``about``: all else that it depends on, by name."""

    module: Path
    directory: Path
    binary: Path
    about: Mapping[str, str]

    def holds(self) -> bool:
        """Whether an init that went well was made of the very same, and what it installed is still there."""
        try:
            noted = (self.directory / _NOTE).read_text(encoding="ascii")
            return noted == self._digest() and self._has_providers()
        except (OSError, ValueError):
            return False

    def write(self) -> None:
        """Notes that an init went well."""
        note = self.directory / _NOTE
        note.parent.mkdir(exist_ok=True)
        note.write_text(self._digest(), encoding="ascii")

    def _digest(self) -> str:
        found = hashlib.sha256()
        for name, content in self._parts():
            found.update(f"{name} {len(content)}\n".encode() + content)
        return found.hexdigest()

    def _parts(self) -> Iterator[tuple[str, bytes]]:
        stat = self.binary.stat()
        yield "terraform", f"{self.binary} {stat.st_size} {stat.st_mtime_ns}".encode()
        for name, value in sorted(self.about.items()):
            yield name, value.encode()
        for path in sorted(self._list_files()):
            yield str(path), path.read_bytes()

    def _list_files(self) -> set[Path]:
        """Those of the module, their copies, and what else is configuration there: overrides, the backend."""
        ours = {
            path
            for path in self.module.rglob("*")
            if path.is_file()
            and ".terraform" not in path.relative_to(self.module).parts
            and not path.name.startswith(STATE)
        }
        copies = {self.directory / path.relative_to(self.module) for path in ours} | {self.directory / _LOCK}
        others = {*self.directory.glob("*.tf"), *self.directory.glob("*.tf.json")}
        return {path for path in ours | copies | others if path.is_file()}

    def _has_providers(self) -> bool:
        """Providers are links into a mirror or a cache, which somebody may have emptied."""
        return all(path.exists() for path in (self.directory / ".terraform/providers").glob("*/*/*/*/*"))


def forget_init(directory: Path) -> None:
    """The next init in this directory is a whole one."""
    (directory / _NOTE).unlink(missing_ok=True)
