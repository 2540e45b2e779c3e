"""How a comparison of model and kernel looks: a table of suites, and the reproduction of each mismatch."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.syntax import Syntax
from rich.table import Table

from gmemlab.lab.conform.run import Result
from gmemlab.report.distances import comparisons_as_json, print_comparisons

_STYLES = {"agrees": "green", "differs": "bold red", "skipped": "yellow"}


def print_conformance(screen: Console, results: Sequence[Result]) -> None:
    """Print a row for each suite, then what differs and a program that shows it.

    Args:
        screen: where to.
        results: one for each suite.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("suite", "shows", "result"):
        table.add_column(name, no_wrap=name != "shows")
    for name in ("operations", "refused", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        suite = result.suite
        numbers = ("", "", "") if result.reason else (f"{result.operations:,}", f"{result.failed:,}", f"{result.seconds:.1f}")
        table.add_row(suite.name, f"{suite.rows}: {suite.summary}", f"[{_STYLES[result.status]}]{result.status}[/]", *numbers)
    Console(file=screen.file, markup=True, highlight=False).print(table)
    for result in results:
        if result.reason:
            screen.print(f"{result.suite.name} skipped: {result.reason}")
        if result.disturbed:
            times = "once" if result.disturbed == 1 else f"{result.disturbed} times"
            screen.print(f"{result.suite.name}: {times}, a mismatch did not show again: other processes use huge pages, too")
    for result in results:
        if result.comparisons:
            print_comparisons(screen, result)
        if result.mismatch:
            _print_mismatch(screen, result)


def _print_mismatch(screen: Console, result: Result) -> None:
    assert result.mismatch is not None
    screen.print(f"\n{result.suite.name}: after step {result.mismatch.number + 1}, {result.mismatch.step}", style="bold")
    for line in result.mismatch.differences:
        screen.print(f"  {line}")
    if result.script:
        screen.print("\nThis program shows what the kernel does:\n")
        screen.print(Syntax(result.script, "python", background_color="default") if screen.is_terminal else result.script)


def conformance_as_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return what ``--json`` prints: a list of suites; seconds are wall time.

    Args:
        results: one for each suite.
    """
    return {
        "suites": [
            {
                "suite": result.suite.name,
                "facts": result.suite.rows,
                "status": result.status,
                "operations": result.operations,
                "refused": result.failed,
                "seconds": round(result.seconds, 3),
                "reason": result.reason,
                "disturbed": result.disturbed,
                "mismatch": None
                if result.mismatch is None
                else {
                    "step": result.mismatch.number,
                    "operation": dict(zip(result.mismatch.step._fields, result.mismatch.step, strict=True)),
                    "differences": list(result.mismatch.differences),
                    "script": result.script,
                },
                "null_model": result.null_model,
                "comparisons": comparisons_as_json(result.comparisons),
            }
            for result in results
        ]
    }
