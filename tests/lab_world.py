"""Small scenarios, hand-made traces and rows for the tests of the laboratory."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from gmemlab.core.layout import EVENT, GUEST
from gmemlab.lab.compare import Row, Spread
from gmemlab.lab.figures import FIGURES
from gmemlab.lab.null_model import NULL_FIGURES
from gmemlab.model.guests import OPERATIONS, PHASES
from gmemlab.presets import find
from gmemlab.workload.trace import Trace

# Two guests of 128 MiB on a host of 1 GiB, with run-time conversions that are pinned and referenced now and then.
SMALL: Final = """
title = "Two small guests"
duration = "1h"
sample_interval = "10min"
policies = ["4k", "thp"]

[guests]
machine = "flat"
sizes = "fixed"
fixed = ["128M"]
count = 2
lifetimes = "forever"

[boot]
time = "1s"
firmware = "none"
touched = 0.5
touched_final = 1.0
touch_time = "5min"

[swiotlb]
smallest = "4M"
largest = "8M"
aligned = true
place = "top"
touched = 0.5

[runtime]
rate_per_gib_hour = 0.0
rate_per_guest_hour = 20.0
pages = 1
placement = "scattered"
returns_private = true
hold = "5min"
"""
GIB: Final = 1 << 30


def write_scenario(folder: Path, **changes: str) -> Path:
    """Write the small scenario as TOML, with the values of some keys replaced."""
    lines = SMALL.splitlines()
    for key, value in changes.items():
        (index,) = (number for number, line in enumerate(lines) if line.startswith(f"{key} = "))
        lines[index] = f"{key} = {value}"
    path = folder / "small.toml"
    path.write_text("\n".join(lines))
    return path


def make_trace(events: Sequence[tuple[int, ...]], pages: Sequence[int], duration: int, **changes: Any) -> Trace:
    """Return a trace of events (time, vm, op, arg, first, count) of guests with one memslot each, at gfn 0x1000."""
    guests = np.zeros(len(pages), GUEST)
    guests["pages"] = pages
    guests["slot_gfn"][:, 0] = 0x1000
    guests["slot_count"][:, 0] = pages
    values: dict[str, Any] = {
        "events": np.array(list(events), EVENT),
        "guests": guests,
        "names": tuple(f"guest-{number}" for number in range(len(pages))),
        "assumptions": (),
        "background_pages": (0, 0),
        "peak_guest_bytes": sum(pages) * 4096,
        "duration_ns": duration,
        "seed": 0,
        "not_admitted": 0,
    }
    return Trace(**{**values, **changes})


def make_row(name: str, null: dict[str, float] | None = None, /, **figures: float | tuple[float, float, float]) -> Row:
    """Return a row of a comparison: figures that are not named are 0, null figures None."""
    values = {key: _spread(figures.get(key, 0.0)) for key in FIGURES}
    nulls = {key: Spread(*(3 * [null[key]])) if null and key in null else None for key in NULL_FIGURES}
    return Row(find(name), (), values, nulls)


def with_operations(row: Row, counts: Mapping[str, tuple[float, float, float]]) -> Row:
    """The row with what the guests' hardware did: at boot, running, at tear-down; what is not named never happened."""
    operations = {
        name: {phase: _spread(count) for phase, count in zip(PHASES, counts.get(name, (0.0, 0.0, 0.0)), strict=True)}
        for name in OPERATIONS
    }
    return replace(row, operations=operations)


def with_hazards(row: Row, kind: str, led_by: Mapping[str, float]) -> Row:
    """The row with what must not happen, by the operations that led to it."""
    return replace(row, hazards={kind: {name: _spread(pages) for name, pages in led_by.items()}})


def _spread(value: float | tuple[float, float, float]) -> Spread:
    return Spread(*value) if isinstance(value, tuple) else Spread(value, value, value)
