"""The tables of what work took, of the host and of the guests' hardware, under a comparison; and the same as plain data."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from gmemlab.costs import FREE, USELESS_SPREAD, Costs
from gmemlab.lab.compare import Row
from gmemlab.lab.times import HOST_OPERATIONS, NOT_COUNTED, Interval, Time, host_times, page_state_times, total
from gmemlab.model.guests import PHASES
from gmemlab.report.table import DIM, NOTHING, name_of, policy_table, print_paragraph
from gmemlab.units import format_duration

NO_TEST: Final = "no test"
LEGEND: Final = (
    f"{NO_TEST}: the ends of the interval are more than {USELESS_SPREAD:g} times apart: it confirms nothing, and where two of"
    " them overlap, they rank nothing"
)


def write_interval(interval: Interval | None) -> str:
    """Return both ends; where they are too far apart, after the words that say so."""
    if interval is None:
        return NOTHING
    ends = f"{format_duration(interval.low)}–{format_duration(interval.high)}"
    return f"{NO_TEST}:\n{ends}" if interval.useless else ends


def print_host_time(console: Console, rows: Sequence[Row], costs: Costs) -> None:
    """Print what the host's work took: each part as most likely, all together from least to most; and what is left out.

    Nothing, if the profiles that were named price none of it.

    Args:
        console: where to.
        rows: of a comparison.
        costs: the profiles.
    """
    times = host_times(rows, costs)
    shown = [operation for operation in HOST_OPERATIONS if any(operation.figure in time.parts for time in times)]
    if not shown:
        return
    table = _table(rows, (*(operation.title for operation in shown), "all:\nlow – high"))
    for row, time in zip(rows, times, strict=True):
        cells = (_likely(time.parts.get(operation.figure)) for operation in shown)
        table.add_row(name_of(row), *cells, write_interval(time.total if time.parts else None))
    console.print(
        f"\nHost time of operations, costs from {', '.join(one.name for one in costs.named)}", style="bold", soft_wrap=True
    )
    console.print(table)
    print_paragraph(console, _left_out(f"Not counted: {NOT_COUNTED}", times, costs), style=DIM)


def print_page_state_time(console: Console, rows: Sequence[Row], costs: Costs) -> None:
    """Print what page states took in each phase, as intervals; and by what they are priced."""
    times = [page_state_times(row, costs) for row in rows]
    shown = [phase for phase in PHASES if any(time[phase].parts for time in times)]
    table = _table(rows, (*shown, "all"))
    for row, time in zip(rows, times, strict=True):
        parts = [time[phase].total if time[phase].parts else None for phase in shown]
        everything = total(part for part in parts if part is not None)
        table.add_row(name_of(row), *map(write_interval, parts), write_interval(everything if any(parts) else None))
    console.print(f"\nTime of page states and private faults, costs from {costs.name}", style="bold", soft_wrap=True)
    console.print(table)
    every = [time[phase] for time in times for phase in shown]
    text = "Summed over all guests, as if one after the other" + (f"; {LEGEND}" if NO_TEST in _texts(every) else "")
    print_paragraph(console, _left_out(text, every, costs), style=DIM)


def _texts(times: Iterable[Time]) -> str:
    return " ".join(write_interval(time.total) for time in times if time.parts)


def _table(rows: Sequence[Row], headers: Sequence[str]) -> Table:
    table = policy_table(rows)
    for header in headers:
        table.add_column(header, justify="right", vertical="bottom", no_wrap=True)
    return table


def _likely(interval: Interval | None) -> str:
    if interval is None:
        return NOTHING
    return NO_TEST if interval.useless else format_duration(interval.value)


def _left_out(text: str, times: Sequence[Time], costs: Costs) -> str:
    lacking = dict.fromkeys(entry for time in times for entry in time.not_costed)
    if lacking:
        text += f"; counted, but no entry in {costs.name}: {', '.join(lacking)}"
    return f"{text}."


def cost_notes(costs: Costs) -> tuple[str, ...]:
    """Return what times rest on, a line for each note of a profile."""
    return tuple(f"costs {profile.name}: {note}" for profile in costs.profiles for note in profile.notes)


def costs_as_json(rows: Sequence[Row], costs: Costs) -> dict[str, Any]:
    """Return times in nanoseconds, by policy, and the entries that they rest on.

    Args:
        rows: of a comparison.
        costs: the profiles.
    """
    data: dict[str, Any] = {"costs": _entries(rows, costs)}
    if costs.named:
        data["host_time"] = {
            "profile": ", ".join(profile.name for profile in costs.named),
            "not_counted": NOT_COUNTED,
            "entries": {
                row.policy.name: {operation.figure: operation.entry_for(row.policy) for operation in HOST_OPERATIONS}
                for row in rows
            },
            "policies": {row.policy.name: _as_json(time) for row, time in zip(rows, host_times(rows, costs), strict=True)},
        }
    if costs.default is not None:
        data["page_state_time"] = {
            "profile": costs.name,
            "free": dict(FREE),
            "policies": {
                row.policy.name: {phase: _as_json(time) for phase, time in page_state_times(row, costs).items()} for row in rows
            },
        }
    return data


def _entries(rows: Sequence[Row], costs: Costs) -> dict[str, Any]:
    """What prices what was counted, with its source."""
    names = {operation.entry_for(row.policy) for operation in HOST_OPERATIONS for row in rows if costs.named}
    names |= {name for row in rows for name, phases in row.operations.items() if any(one.most for one in phases.values())}
    found: dict[str, Any] = {}
    for name in sorted(names):
        if (cost := costs.get(name)) is not None:
            found[name] = {
                "profile": costs.owner(name), "unit": cost.unit, "low": cost.low, "value": cost.value, "high": cost.high,
                "confidence": cost.confidence, "source": cost.source,
            }  # fmt: skip
    return found


def _as_json(time: Time) -> dict[str, Any]:
    return {
        "total_ns": _ends(time.total),
        "no_test": bool(time.parts) and time.total.useless,
        "parts_ns": {figure: _ends(part) for figure, part in time.parts.items()},
        "not_costed": list(time.not_costed),
    }


def _ends(interval: Interval) -> dict[str, float]:
    return {"low": interval.low, "value": interval.value, "high": interval.high}
