"""Which tags an image gets: ``1.4.0`` for the release v1.4.0, and names that end with ``-test`` for everything else.

Run by pipelines before anything is installed, so that it needs nothing but Python:
``python3 -m backend.provisioning.image_tags REF COMMIT`` prints a tag a line, the most exact one first.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

# docs.docker.com/reference/cli/docker/image/tag: at most 128 letters, digits, underscores, periods and hyphens.
MAX_BRANCH = 80
_RELEASE = re.compile(r"refs/tags/v(\d+\.\d+\.\d+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NoTag(Exception):
    """There is no tag for this; says why."""


def choose_tags(ref: str, commit: str, *, version: str) -> list[str]:
    """The tags for a git ref (as in GITHUB_REF) at a commit, in a project of this version.

    Raises:
        NoTag: the ref is none that images are made of, or a release of another version.
    """
    if not _COMMIT.fullmatch(commit):
        raise NoTag(f"'{commit}' is not a commit's full name")
    if ref.startswith("refs/tags/"):
        return [_release(ref, version)]
    kind, _, name = ref.removeprefix("refs/").partition("/")
    if kind == "pull":
        name = f"pr-{name.partition('/')[0]}"
    elif kind != "heads":
        raise NoTag(f"'{ref}' is neither a branch, a pull request nor a release")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower())[:MAX_BRANCH].strip("-")
    if not slug:
        raise NoTag(f"'{name}' has no letter or digit to make a tag of")
    return [f"{slug}-{commit[:7]}-test", f"{slug}-test"]


def _release(ref: str, version: str) -> str:
    found = _RELEASE.fullmatch(ref)
    if found is None:
        raise NoTag(f"'{ref}' is not a release; write v1.4.0")
    if found[1] != version:
        raise NoTag(f"the tag says {found[1]}, but pyproject.toml says {version}")
    return found[1]


def main(arguments: Sequence[str]) -> int:
    """Prints them; returns the exit status."""
    if len(arguments) != 2:
        print("usage: python3 -m backend.provisioning.image_tags REF COMMIT", file=sys.stderr)
        return 2
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        print("\n".join(choose_tags(*arguments, version=project["version"])))
    except NoTag as exc:
        print(f"image_tags: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
