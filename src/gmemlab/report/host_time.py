"""The table of host time under a comparison, and the same as plain data."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from gmemlab.costs import Profile
from gmemlab.lab.compare import Row
from gmemlab.lab.host_time import NOT_COUNTED, OPERATIONS, HostTime, Interval, host_times
from gmemlab.report.table import DIM, NOTHING, print_paragraph
from gmemlab.units import format_duration


def print_host_time(console: Console, rows: Sequence[Row], profile: Profile, name: str) -> None:
    """Print what the operations took the host: each as most likely, all together from least to most; and what is left out.

    Args:
        console: where to.
        rows: of a comparison.
        profile: the costs.
        name: of the file that they are from.
    """
    times = host_times(rows, profile)
    shown = [operation for operation in OPERATIONS if any(operation.figure in time.parts for time in times)]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=DIM)
    table.add_column("policy", vertical="bottom", overflow="fold")
    for header in (*(operation.title for operation in shown), "all:\nlow – high"):
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    for row, time in zip(rows, times, strict=True):
        parts = (time.parts.get(operation.figure) for operation in shown)
        cells = (NOTHING if part is None else format_duration(part.value) for part in parts)
        table.add_row(row.policy.name, *cells, _write(time.total if time.parts else None))
    console.print(f"\nHost time of operations, costs from {name}", style="bold", soft_wrap=True)
    console.print(table)
    print_paragraph(console, _left_out(rows, times, profile), style=DIM)


def _left_out(rows: Sequence[Row], times: Sequence[HostTime], profile: Profile) -> str:
    lacking = dict.fromkeys(entry for time in times for entry in time.not_costed)
    priced = dict.fromkeys(operation.entry_for(row.policy) for operation in OPERATIONS for row in rows)
    wide = [entry for entry in priced if (cost := profile.costs.get(entry)) and cost.useless]
    parts = [f"Not counted: {NOT_COUNTED}"]
    if lacking:
        parts.append(f"counted, but {profile.name} has no entry: {', '.join(lacking)}")
    if wide:
        parts.append(f"of no use, its spread is too wide: {', '.join(wide)}")
    return f"{'; '.join(parts)}."


def _write(interval: Interval | None) -> str:
    return NOTHING if interval is None else f"{format_duration(interval.low)} – {format_duration(interval.high)}"


def host_time_as_json(rows: Sequence[Row], profile: Profile) -> dict[str, Any]:
    """Return host times in nanoseconds, by policy.

    Args:
        rows: of a comparison.
        profile: the costs.
    """
    times = host_times(rows, profile)
    return {
        "profile": profile.name,
        "not_counted": NOT_COUNTED,
        "entries": {
            row.policy.name: {operation.figure: operation.entry_for(row.policy) for operation in OPERATIONS} for row in rows
        },
        "policies": {row.policy.name: _as_json(time) for row, time in zip(rows, times, strict=True)},
    }


def _as_json(time: HostTime) -> dict[str, Any]:
    return {
        "total_ns": _ends(time.total),
        "parts_ns": {figure: _ends(part) for figure, part in time.parts.items()},
        "not_costed": list(time.not_costed),
    }


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "value": interval.value, "high": interval.high}
