from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from backend.provisioning.image_tags import NoTag, choose_tags

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("ref", "tags"),
    [
        ("refs/tags/v1.4.0", ["1.4.0"]),
        ("refs/heads/main", ["main-0123456-test", "main-test"]),
        ("refs/heads/Fix/Odd_Names!", ["fix-odd-names-0123456-test", "fix-odd-names-test"]),
        ("refs/pull/12/merge", ["pr-12-0123456-test", "pr-12-test"]),
    ],
)
def test_releases_are_pinned_and_all_else_is_a_test(ref: str, tags: list[str]) -> None:
    assert choose_tags(ref, COMMIT, version="1.4.0") == tags


def test_a_long_name_still_makes_a_tag() -> None:
    for tag in choose_tags(f"refs/heads/{'long/' * 60}", COMMIT, version="1.4.0"):
        assert re.fullmatch(r"[a-z0-9_][a-z0-9._-]{0,127}", tag)


@pytest.mark.parametrize(
    ("ref", "commit", "why"),
    [
        ("refs/tags/v1.4.1", COMMIT, "the tag says 1.4.1, but pyproject.toml says 1.4.0"),
        ("refs/tags/latest", COMMIT, "is not a release"),
        ("refs/tags/v1.4.0-rc1", COMMIT, "is not a release"),
        ("refs/heads////", COMMIT, "no letter or digit"),
        ("refs/notes/x", COMMIT, "neither a branch"),
        ("refs/heads/main", "0123456", "full name"),
    ],
)
def test_what_has_no_tag_says_why(ref: str, commit: str, why: str) -> None:
    with pytest.raises(NoTag, match=why):
        choose_tags(ref, commit, version="1.4.0")


def test_pipelines_run_it_with_plain_python() -> None:
    # -S: without any installed package.
    command = [sys.executable, "-S", "-m", "backend.provisioning.image_tags", "refs/heads/main", COMMIT]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "main-0123456-test\nmain-test\n", "")
