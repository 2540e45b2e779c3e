"""What the test run tells at its end: how often each operation succeeded and failed under each policy."""

import pytest

OUTCOMES = "outcomes"


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
