"""What the whole test run shares: tests of the running kernel take turns, and its end tells how often operations failed."""

import pytest

OUTCOMES = "outcomes"
LIVE = ("tests/kernel/", "tests/test_cli_calibrate.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that change settings of the machine run in one process: in two, they would wait for each other."""
    for item in items:
        if item.nodeid.startswith(LIVE):
            item.add_marker(pytest.mark.xdist_group("live"))


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
