"""Another commit beside this working tree, measured in turns: what became slower beyond the noise.

Both are measured by this tree's bench, with the very same load; only the servers and agents that it starts differ. A
figure has changed if all of its rounds on one side are worse than all on the other (with three rounds chance does that
once in twenty) and the medians differ by a tenth or more. Taking turns keeps what drifts on a machine out of it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lablink_ui.bench.figures import show

ROUNDS = 3
NOTABLE = 0.1
INTERRUPTED = 130
_BENCH = "from lablink_ui.cli import main; raise SystemExit(main())"
# Of one side: for each figure its value in every round, and whether more of it is better.
Values = dict[tuple[str, str], list[float]]


class CompareFailed(Exception):
    """There is nothing to compare; says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares; returns 1 if something became slower, 2 if nothing could be compared."""
    parser = argparse.ArgumentParser(prog="make bench-compare", description=__doc__.partition("\n")[0])
    parser.add_argument("base", help="the commit to compare with")
    parser.add_argument("scenarios", nargs="*", help="default: all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"at least {ROUNDS}")
    given = parser.parse_args(arguments)
    # What was made is removed on SIGTERM as on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with checked_out(Path.cwd(), given.base) as python:
            return _report(*_measure_in_turns(python, given.scenarios, max(given.rounds, ROUNDS)))
    except CompareFailed as exc:
        print(f"bench-compare: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench-compare: stopped; what it had made is removed", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def checked_out(repository: Path, base: str) -> Iterator[Path]:
    """The Python of another commit, with its own packages only if its locks differ. Nothing remains.

    Raises:
        CompareFailed: there is no such commit, or its packages cannot be installed.
    """
    commit = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{base}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="lablink-compare-", ignore_cleanup_errors=True) as directory:
        tree = Path(directory) / "base"
        try:
            _git(repository, "worktree", "add", "--detach", str(tree), commit)
            is_same = not _git(repository, "diff", "--name-only", commit, "--", "requirements")
            yield _borrow_packages(tree) if is_same else _install_packages(tree)
        finally:
            _git(repository, "worktree", "remove", "--force", str(tree), check=False)


def find_changes(
    before: Values, now: Values, more_is_better: Mapping[tuple[str, str], bool]
) -> dict[tuple[str, str], str]:
    """``slower``, ``faster`` or ``same`` for each figure that both sides have."""
    return {key: _judge(before[key], now[key], more_is_better=more_is_better[key]) for key in before if now.get(key)}


def _judge(before: Sequence[float], now: Sequence[float], *, more_is_better: bool) -> str:
    old, new = statistics.median(before), statistics.median(now)
    if abs(new - old) < NOTABLE * abs(old):
        return "same"
    if max(now) < min(before):
        return "slower" if more_is_better else "faster"
    if min(now) > max(before):
        return "faster" if more_is_better else "slower"
    return "same"


def _measure_in_turns(
    python: Path, scenarios: Sequence[str], rounds: int
) -> tuple[Values, Values, dict[tuple[str, str], bool]]:
    before: Values = {}
    now: Values = {}
    more_is_better: dict[tuple[str, str], bool] = {}
    with tempfile.TemporaryDirectory(prefix="lablink-compare-") as directory:
        for number in range(rounds):
            for name, side, values in (("base", str(python), before), ("now", sys.executable, now)):
                print(f"round {number + 1} of {rounds}: {name}", flush=True)
                for figure in _measure(Path(directory) / "figures.json", side, scenarios):
                    key = (figure["path"], figure["figure"])
                    values.setdefault(key, []).append(figure["ours"])
                    more_is_better[key] = figure["better"] == "more"
    return before, now, more_is_better


def _measure(file: Path, python: str, scenarios: Sequence[str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", _BENCH, "bench", *scenarios, "--json", str(file)]
    status = run_to_its_end(command, {**os.environ, "BENCH_PYTHON": python})
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        raise CompareFailed(f"the bench ended with {status}, with the server of {python}")
    figures: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["figures"]
    return figures


def run_to_its_end(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a bench; told to stop, it is told so too and ends what it had started: killed, it would leave a server."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()


def _report(before: Values, now: Values, more_is_better: Mapping[tuple[str, str], bool]) -> int:
    changes = find_changes(before, now, more_is_better)
    for key, verdict in changes.items():
        old, new = statistics.median(before[key]), statistics.median(now[key])
        print(f"{verdict:<7} {' '.join(key):<60} {show(old):>10} → {show(new):>10}")
    slower = sum(verdict == "slower" for verdict in changes.values())
    print(f"{slower} of {len(changes)} figures became slower beyond the noise" if slower else "nothing became slower")
    return 1 if slower else 0


def _borrow_packages(tree: Path) -> Path:
    """A Python that has the other commit's code, and our packages."""
    home = tree.with_name("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "base.pth").write_text(f"{tree}\n{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return home / "bin" / "python"


def _install_packages(tree: Path) -> Path:
    print("the locks differ: installing that commit's packages …", flush=True)
    done = subprocess.run(["make", "-C", str(tree), ".venv/dev.stamp"], stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise CompareFailed("that commit's packages cannot be installed")
    return tree / ".venv" / "bin" / "python"


def _git(repository: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise CompareFailed(done.stderr.strip() or f"git {arguments[0]} failed")
    return done.stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main())
