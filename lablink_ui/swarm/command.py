"""`lablink swarm`: reads the command line, runs a scenario, reports, and judges."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lablink_ui.swarm.scenario import WrongScenario, describe_keys, parse_scenario, read_text
from lablink_ui.swarm.target import Target, WrongTarget, find_target

if TYPE_CHECKING:
    from lablink_ui.swarm.course import Course

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
TOKEN, PASSWORD = "LABLINK_API_TOKEN", "LABLINK_ADMIN_PASSWORD"
_HELP = """\
A scenario is a YAML file; docs/swarm.yaml is one to begin with. Its keys, none of which must be there:

{keys}

The server must be running, and the pool open to everybody and large enough (pool.default.max). Secrets come from the
environment, or from a file named by …_FILE:
  LABLINK_API_TOKEN           an admin API token: machines are enrolled and taken away with it
  LABLINK_ADMIN_PASSWORD      the password of the user 'admin'; needed where the scenario has admin pages

A swarm's machines are named swarm-0001 and so on, its people swarm-00001@swarm.example. At the end, and on Ctrl-C, they
leave: nothing of them stays but events, unless --keep is given.

Exit status: 0 all was well; 1 an error, a 429, a seat given twice, or somebody with neither seat nor place in line;
2 the command line, the scenario or the environment is wrong; 130 ended by Ctrl-C or SIGTERM.

Examples:
  lablink swarm http://127.0.0.1:8080 --scenario docs/swarm.yaml
  lablink swarm http://127.0.0.1:8080 --scenario class.yaml --seed 7 --report figures
"""


class _Wrong(Exception):
    """The command line or the environment is wrong; the message is one line for people."""


def add_arguments(parser: ArgumentParser) -> None:
    """The command line."""
    parser.add_argument("url", metavar="URL", help="the server, such as http://127.0.0.1:8080")
    parser.add_argument("--scenario", type=Path, required=True, metavar="FILE", help="what the swarm does (YAML)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed, the same swarm (default: 1)")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write swarm.html and swarm.json there")
    parser.add_argument("--keep", action="store_true", help="leave machines and seats as they are at the end")
    parser.add_argument(
        "--anywhere", action="store_true", help="allow a server that is not on this machine; asks for its name first"
    )
    parser.epilog = _HELP.format(keys=describe_keys())


def run_swarm(given: Namespace) -> int:
    """Runs a scenario. Returns the exit status."""
    from lablink_ui.swarm.report import format_report, make_report, write_report

    try:
        course = _prepare(given)
    except (_Wrong, WrongScenario, WrongTarget) as exc:
        print(f"lablink swarm: {exc}", file=sys.stderr)
        return WRONG
    began_at = datetime.now(UTC)
    was_interrupted = asyncio.run(_run(course))
    report = make_report(course, began_at=began_at)
    print(f"\n{format_report(report)}")
    if given.report is not None:
        write_report(report, given.report)
        print(f"report: {given.report / 'swarm.html'}")
    if was_interrupted:
        return INTERRUPTED
    return FAILED if report["reasons"] else OK


def _prepare(given: Namespace) -> Course:
    from lablink_ui.swarm.course import Course

    text = read_text(given.scenario)
    scenario, target = parse_scenario(text), find_target(given.url)
    token, password = _read_secret(os.environ, TOKEN), _read_secret(os.environ, PASSWORD)
    if token is None:
        raise _Wrong(f"set {TOKEN} (or {TOKEN}_FILE) to an admin's API token of that server")
    if scenario.admin_pages and password is None:
        raise _Wrong(f"set {PASSWORD} (or {PASSWORD}_FILE), or admin_pages: 0 in the scenario")
    if given.report is not None:
        _ensure_directory(given.report)
    _allow(target, anywhere=given.anywhere)
    return Course(target, text, given.seed, token, password, given.keep, _Progress())


def _allow(target: Target, *, anywhere: bool) -> None:
    """Another machine's server is loaded only by whoever says its name.

    Raises:
        _Wrong: it is not on this machine, and nobody did.
    """
    if target.is_loopback:
        return
    if not anywhere:
        raise _Wrong(f"{target.host} is not this machine (only loopback is allowed; --anywhere asks before it goes on)")
    print(
        f"This loads the server at {target.origin} with machines and people. Type its name to go on: ",
        end="",
        flush=True,
    )
    if sys.stdin.readline().strip() != target.host:
        raise _Wrong(f"'{target.host}' was not typed; nothing was done")


def _ensure_directory(directory: Path) -> None:
    """Said before a run of many minutes instead of after it.

    Raises:
        _Wrong: nothing can be written there.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise _Wrong(f"--report: {directory} cannot be used: {exc.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise _Wrong(f"--report: {directory} cannot be written to")


def _read_secret(environment: Mapping[str, str], name: str) -> str | None:
    from backend.settings import SettingsError, read_secret

    try:
        return read_secret(environment, name)
    except SettingsError as exc:
        raise _Wrong(str(exc)) from None


async def _run(course: Course) -> bool:
    """Runs it. Returns whether it was told to stop before its end."""
    running = asyncio.create_task(course.run())
    was_told = False

    def stop() -> None:
        nonlocal was_told
        if not was_told:
            was_told = True
            print("\nstopping: everything that came leaves first", file=sys.stderr, flush=True)
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    await asyncio.wait({running})
    if not running.cancelled() and (exc := running.exception()):
        raise exc
    return was_told


class _Progress:
    """One line that changes on a terminal; elsewhere one now and then."""

    EVERY = 5

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last, self._skipped = "", 0

    def __call__(self, words: str) -> None:
        if self._is_terminal:
            print(f"\r\x1b[K{words}", end="", flush=True)
            return
        # Of lines that differ in their figures alone, only some.
        kind = "".join(letter for letter in words if not letter.isdigit())
        self._skipped += 1
        if kind != self._last or self._skipped >= self.EVERY:
            self._last, self._skipped = kind, 0
            print(words, flush=True)
