"""How figures of the kernel, the model and a null model look side by side, with their distances."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from gmemlab.lab.conform.measured import Comparison
from gmemlab.lab.conform.run import Result
from gmemlab.report.table import print_paragraph
from gmemlab.units import signed_size

_WORLDS = ("kernel", "model", "null")


def print_comparisons(screen: Console, result: Result) -> None:
    """Print each figure and its distances, then free memory by order, and what the null model is.

    Args:
        screen: where to.
        result: of a suite that is measured.
    """
    screen.print(f"\n{result.suite.name}: how far the model lies from the kernel", style="bold")
    print_paragraph(screen, f"The null model: {result.null_model}.", style="dim")
    table = _table("", *_WORLDS, "model\noff by", "null\noff by", "kernel's\nruns")
    for one in result.comparisons:
        table.add_row(one.name, *_figures(one), *_distances(one), style="" if one.holds else "bold red")
    screen.print(table)
    for one in result.comparisons:
        if not one.holds:
            screen.print(f"amiss: {one.name} must be {one.rule}", style="bold red")
    for one in result.comparisons:
        if one.by_order and (not one.holds or one is _last_by_order(result.comparisons, one)):
            _print_orders(screen, one)


def _print_orders(screen: Console, one: Comparison) -> None:
    """Print the share of each order."""
    screen.print(f"\n{one.name}: share of free bytes", style="dim")
    table = _table("order", *_WORLDS)
    for order, row in enumerate(zip(one.kernel, one.model, one.null, strict=True)):
        table.add_row(str(order), *(f"{share:.2%}" for share in row))
    screen.print(table)


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _figures(one: Comparison) -> list[str]:
    return [signed_size(values[0]) if len(values) == 1 else "" for values in (one.kernel, one.model, one.null)]


def _distances(one: Comparison) -> list[str]:
    return ["" if value is None else f"{value:.2%}" for value in (one.distance, one.null_distance, one.spread)]


def _last_by_order(comparisons: Sequence[Comparison], like: Comparison) -> Comparison:
    """The last of those that differ in the moment only: the end of a run."""
    kind = like.name.split(",")[0]
    return [one for one in comparisons if one.by_order and one.name.split(",")[0] == kind][-1]


def comparisons_as_json(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return what ``--json`` prints: bytes, or shares by order from 0 to 1; distances from 0 to 1.

    Args:
        comparisons: of a suite.
    """
    return [asdict(one) for one in comparisons]
