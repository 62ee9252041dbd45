"""Measures the product's shared paths, each as a ratio to a limit of this machine measured in the same run.

A scenario is a module with ``measure(sizes, cores) -> Report``. It starts what it measures and ends it again. Figures
are printed and never judged: this fails on what is wrong (a double claim, an error answer), not on what is slow.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from lablink_ui.bench.conditions import Cores, Sizes, describe_machine, find_cores, pinned_to
from lablink_ui.bench.figures import LEGEND, BenchFailed, Report, describe, format_table
from lablink_ui.bench.picture import draw

SCENARIOS = (
    "claims", "heartbeats", "commands", "agent", "pages", "first_page", "arrivals", "launch", "terminals", "aws",
    "two_processes",
)  # fmt: skip
INTERRUPTED = 130


def run_bench(
    names: Sequence[str] = (), *, json_file: Path | None = None, picture: Path | None = None, sizes: Sizes | None = None
) -> int:
    """Runs the named scenarios (all without a name), prints the table, and writes it as JSON and SVG if asked to.

    Returns the exit status: 1 if something was wrong, 2 if the command line was.
    """
    if problem := _find_problem(names, {"--json": json_file, "--picture": picture}):
        print(f"lablink bench: {problem}", file=sys.stderr)
        return 2
    machine, cores = describe_machine(), find_cores()
    print(f"LabLink bench on {', '.join(f'{name} {value}' for name, value in machine.items())}\n{cores}", flush=True)
    try:
        with pinned_to(cores.load):
            reports, failures = asyncio.run(_run_all(names or SCENARIOS, sizes or Sizes(), cores))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("lablink bench: stopped; all that it had started has ended", file=sys.stderr)
        return INTERRUPTED
    _print(reports, failures)
    content = describe(reports, failures, machine=machine, cores=str(cores))
    if json_file is not None:
        json_file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if picture is not None:
        picture.write_text(draw(content), encoding="utf-8")
    return 1 if failures else 0


def _find_problem(names: Sequence[str], files: Mapping[str, Path | None]) -> str | None:
    """What would make the run useless, said before it instead of after."""
    unknown = sorted(set(names) - set(SCENARIOS))
    if unknown:
        return f"there is no scenario {', '.join(unknown)}; there are: {', '.join(SCENARIOS)}"
    for option, file in files.items():
        if file is not None and not file.parent.is_dir():
            return f"{option}: there is no directory {file.parent}"
    return None


async def _run_all(names: Sequence[str], sizes: Sizes, cores: Cores) -> tuple[list[Report], list[str]]:
    me = asyncio.current_task()
    assert me is not None
    # What was started is ended on the way out; that must hold for SIGTERM as it does for Ctrl-C.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: me.cancelling() or me.cancel())
    reports, failures = [], []
    for name in dict.fromkeys(names):
        began = time.monotonic()
        print(f"  {name} …", end=" ", flush=True)
        try:
            reports.append(await _run(name, sizes, cores))
        except Exception as exc:  # one broken scenario must not cost the figures of the others
            failures.append(f"{name}: {exc or type(exc).__name__}")
            if not isinstance(exc, BenchFailed):
                traceback.print_exc()
        print(f"{time.monotonic() - began:.0f} s", flush=True)
    return reports, failures


async def _run(name: str, sizes: Sizes, cores: Cores) -> Report:
    try:
        scenario = importlib.import_module(f"lablink_ui.bench.{name}")
    except ModuleNotFoundError as exc:
        raise BenchFailed(f"{exc.name} is not installed; `make bench` brings it (lablink[server,dev])") from exc
    report: Report = await scenario.measure(sizes, cores)
    return report


def _print(reports: Sequence[Report], failures: Sequence[str]) -> None:
    figures = [figure for report in reports for figure in report.figures]
    if figures:
        print(f"\n{format_table(figures)}\n\n{LEGEND}")
    for note in (note for report in reports for note in report.notes):
        print(f"* {note}")
    for failure in failures:
        print(f"FAILED {failure}")
