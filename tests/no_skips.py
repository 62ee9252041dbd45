"""A skipped or expectedly failing test fails the run, but for tests marked ``gpu_hardware``, which the end counts."""

from __future__ import annotations

import pytest

_skipped: list[str] = []
_gpu: list[str] = []


# Of every report, wherever its test ran: with workers, this is called in the process that sums up as well.
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped or hasattr(report, "wasxfail"):
        (_gpu if "gpu_hardware" in report.keywords else _skipped).append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and report.nodeid not in _skipped:
        _skipped.append(report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped and exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for nodeid in _skipped:
        terminalreporter.write_line(f"FAILED {nodeid}: nothing may be skipped or expected to fail")
    if _gpu:
        terminalreporter.write_line(f"{len(_gpu)} tests need an NVIDIA GPU and were skipped")
