"""What holds for every suite: skips are counted, and in CI an unexpected one fails the run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Reasons that begin with one of these may be skipped in CI; each says why nothing can be done about it there.
EXPECTED_SKIPS: tuple[str, ...] = ()

_unexpected: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Tools that `make tools` put below the checkout come first on PATH."""
    tools = Path(__file__).parent.parent / ".tools" / "bin"
    os.environ["PATH"] = f"{tools}{os.pathsep}{os.environ['PATH']}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if not reason.startswith(EXPECTED_SKIPS or ("\0",)):
            _unexpected.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("MESHNODE_NO_SKIPS") and _unexpected and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("MESHNODE_NO_SKIPS") and _unexpected:
        terminalreporter.section("skips that CI does not expect", red=True)
        for line in _unexpected:
            terminalreporter.line(line)
