"""What the whole test run shares: tests of the running kernel take turns, and its end tells how often operations failed."""

import signal
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

OUTCOMES = "outcomes"
LIVE = ("tests/kernel/", "tests/test_cli_calibrate.py")


class LiveTogether(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Spreads the tests over the processes. Those that change settings of the machine share one: two would see each other's."""

    def _split_scope(self, nodeid: str) -> str:
        return "live" if nodeid.startswith(LIVE) else nodeid


def pytest_configure() -> None:
    """Let commands that tests start be interrupted: a shell without job control has those in the background ignore it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LiveTogether:
    """How pytest-xdist spreads the tests."""
    return LiveTogether(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts that the comparisons with the oracle recorded, also from other processes."""
    lines = [
        text
        for report in terminalreporter.stats.get("passed", []) + terminalreporter.stats.get("failed", [])
        for name, text in getattr(report, "user_properties", [])
        if name == OUTCOMES
    ]
    if lines:
        terminalreporter.section("operations succeeded/failed under each policy")
        for line in sorted(lines):
            terminalreporter.write_line(line)
