"""What became slower is told from noise, and another commit's code is what is measured."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lablink_ui.bench.compare import CompareFailed, checked_out, find_changes, run_to_its_end
from lablink_ui.bench.figures import MS, PER_S, Figure, Report, describe
from lablink_ui.bench.picture import draw


@pytest.mark.parametrize(
    ("before", "now", "more_is_better", "verdict"),
    [
        ([100, 101, 102], [130, 131, 140], False, "slower"),
        ([100, 101, 102], [130, 131, 140], True, "faster"),
        ([100, 101, 102], [60, 61, 62], True, "slower"),
        # One round of one side lies among the other's: noise.
        ([100, 101, 131], [130, 140, 150], False, "same"),
        # All worse, but by less than a tenth.
        ([100, 101, 102], [105, 106, 107], False, "same"),
    ],
)
def test_slower_is_what_is_worse_in_every_round_and_by_a_tenth(before, now, more_is_better, verdict) -> None:
    key = ("claim", "p99")
    assert find_changes({key: before}, {key: now}, {key: more_is_better}) == {key: verdict}


def test_a_figure_that_one_side_lacks_is_not_compared() -> None:
    assert find_changes({("old", "p50"): [1.0]}, {("new", "p50"): [2.0]}, {("old", "p50"): True}) == {}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits of a package that says which one it is."""
    place = tmp_path / "repository"
    (place / "requirements").mkdir(parents=True)
    (place / "requirements" / "server.txt").write_text("nothing\n")
    (place / "which.py").write_text("commit = 'first'\n")
    git(place, "init", "--quiet")
    git(place, "add", ".")
    git(place, "commit", "--quiet", "-m", "first")
    (place / "which.py").write_text("commit = 'second'\n")
    return place


def git(place: Path, *arguments: str) -> str:
    named = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", str(place), *named, *arguments], check=True, capture_output=True, text=True
    ).stdout


def test_the_other_commits_code_runs_with_our_packages_and_nothing_of_it_remains(repository: Path) -> None:
    look = "import which, psutil; print(which.commit)"
    with pytest.raises(KeyboardInterrupt), checked_out(repository, "HEAD") as python:
        said = subprocess.run([python, "-P", "-c", look], capture_output=True, text=True, check=True).stdout
        assert said == "first\n"
        raise KeyboardInterrupt
    assert not python.exists()
    assert git(repository, "worktree", "list").count("\n") == 1


def test_whoever_stops_it_stops_the_bench_that_runs_and_waits_for_its_end(tmp_path: Path, monkeypatch) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    bench = f"""
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path({str(ended)!r}).touch(), sys.exit(130)))
pathlib.Path({str(begun)!r}).touch()
signal.pause()"""
    wait = subprocess.Popen.wait

    def wait_once(process, *args):
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", wait_once)
    with pytest.raises(KeyboardInterrupt):
        run_to_its_end([sys.executable, "-c", bench], {})
    assert ended.exists()


def test_a_commit_that_is_not_there_is_said(repository: Path) -> None:
    with pytest.raises(CompareFailed, match="single revision"), checked_out(repository, "nowhere"):
        pass


def test_the_picture_shows_every_figure_with_and_without_a_limit() -> None:
    figures = [Figure("claim", "p99 < all", MS, 20, 10, "bare"), Figure("loop", "late", PER_S, 3, None, "")]
    content = describe([Report(figures)], [], machine={"cpu": "any"}, cores="")
    drawn = ET.fromstring(draw(content))
    texts = [each.text for each in drawn.iter() if each.text]
    assert {"claim: p99 < all", "loop: late"} <= set(texts)
    widths = [float(each.get("width", 0)) for each in drawn.iter() if each.get("class") in {"ours", "limit"}]
    assert widths == [300, 150, 300, 0]
