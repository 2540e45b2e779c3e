"""How a calibration looks: each entry beside the shipped one, and what to make of wide spreads."""

from dataclasses import asdict
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.costs import USELESS_SPREAD, Cost, Profile
from gmemlab.lab.calibrate import Calibration
from gmemlab.report.table import print_paragraph
from gmemlab.units import format_duration

_STAR: Final = "!"
_PER: Final = "ns per "


def print_calibration(screen: Console, calibration: Calibration, default: Profile) -> None:
    """Print a row for each entry, what was not measured, and which figures are of no use.

    Args:
        screen: where to.
        calibration: what was measured.
        default: what it is compared with.
    """
    profile = calibration.profile
    screen.print(f"Linux {profile.kernel} · {profile.cpu}", style="bold", soft_wrap=True)
    print_paragraph(screen, f"{calibration.rounds} rounds; {profile.notes[0]}.", style="dim")
    sources = ", ".join(dict.fromkeys(_origin(cost) for name, cost in default.costs.items() if name in profile.costs))
    print_paragraph(screen, f"Beside it {default.name}: Linux {default.kernel}, {default.cpu}; from {sources}.", style="dim")
    screen.print()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("operation", no_wrap=True)
    table.add_column("per", no_wrap=True)
    for header in ("median", "5%–95%", f"{default.name}", "ratio"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, cost in profile.costs.items():
        table.add_row(*_cells(name, cost, default.costs.get(name)))
    screen.print(table)
    _print_remarks(screen, calibration)


def _cells(name: str, cost: Cost, other: Cost | None) -> list[Text]:
    mark = f" {_STAR}" if cost.useless else ""
    cells = [name, cost.unit.removeprefix(_PER), format_duration(cost.value) + mark]
    cells.append(f"{format_duration(cost.low)}–{format_duration(cost.high)}")
    if other is None:
        cells += ["-", "-"]
    else:
        ratio = f"{cost.value / other.value:.2f}" if other.value and cost.unit == other.unit else "-"
        cells += [format_duration(other.value), ratio]
    return [Text(cell, style="yellow" if cost.useless else "") for cell in cells]


def _origin(cost: Cost) -> str:
    """The rows of the facts that a figure is from, without how it was made of them."""
    return cost.source.split(",")[0]


def _print_remarks(screen: Console, calibration: Calibration) -> None:
    if calibration.useless:
        names = ", ".join(calibration.useless)
        text = (
            f"{_STAR} the 95% quantile is more than {USELESS_SPREAD:g} times the 5% one, so the figure is of no use: {names}."
        )
        screen.print()
        print_paragraph(screen, f"{text} Measure again when the machine is quieter.", style="yellow")
    reasons: dict[str, list[str]] = {}
    for name, reason in calibration.skipped.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names_without in reasons.items():
        screen.print()
        print_paragraph(screen, f"Not measured: {', '.join(names_without)} ({reason}).")


def calibration_as_json(calibration: Calibration, default: Profile) -> dict[str, Any]:
    """Return what ``--json`` prints: nanoseconds throughout.

    Args:
        calibration: what was measured.
        default: what it is compared with.
    """
    profile = calibration.profile
    costs = {}
    for name, cost in profile.costs.items():
        other = default.costs.get(name)
        costs[name] = {**asdict(cost), "useless": cost.useless, "default": None if other is None else asdict(other)}
    return {
        "format": profile.format,
        "kernel": profile.kernel,
        "cpu": profile.cpu,
        "date": profile.date,
        "rounds": calibration.rounds,
        "file_bytes": calibration.file_bytes,
        "call_ns": calibration.call_ns,
        "default": default.name,
        "costs": costs,
        "skipped": dict(calibration.skipped),
        "notes": list(profile.notes),
    }
