"""A comparison as plain data for ``--json``: raw bytes, counts and nanoseconds under stable keys."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from gmemlab.core.layout import PAGE_SIZE
from gmemlab.lab.compare import Comparison, Outcome, Row, Spread
from gmemlab.lab.figures import FIGURES
from gmemlab.model.nodes import NodeUsage
from gmemlab.report.status import policy_as_json

FORMAT: Final = 1
_COUNTS: Final = (
    "guests",
    "table_blocks",
    "free_2m",
    "free_2m_movable_zone",
    "free_1g",
    "clean_2m",
)  # the rest is pages


def comparison_as_json(comparison: Comparison, sentences: Sequence[str]) -> dict[str, Any]:
    """Return the whole comparison: setting, units, policies with figures and time series, sentences, notes."""
    setting = comparison.setting
    return {
        "format": FORMAT,
        "scenario": {"title": setting.title, "duration_ns": setting.duration_ns},
        "guests": setting.hardware,
        "host": {
            "description": setting.host,
            "total_bytes": setting.total_bytes,
            "free_bytes": setting.free_bytes,
            "watermarks": setting.watermarks,
            "cma_bytes": setting.cma_bytes,
        },
        "seeds": list(setting.seeds),
        "figures": {key: {"unit": figure.unit, "meaning": figure.meaning} for key, figure in FIGURES.items()},
        "policies": [_row(row) for row in comparison.rows],
        "findings": list(sentences),
        "assumptions": list(setting.assumptions),
        "notes": list(comparison.notes),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "policy": policy_as_json(row.policy),
        "starved": row.starved,
        "figures": _spreads(row.figures),
        "null": _spreads(row.null),
        "operations": {name: _spreads(phases) for name, phases in row.operations.items()},
        "runs": [_outcome(outcome) for outcome in row.outcomes],
    }


def _spreads(spreads: Mapping[str, Spread | None]) -> dict[str, Any]:
    return {
        key: None if spread is None else {"median": spread.median, "min": spread.least, "max": spread.most}
        for key, spread in spreads.items()
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    run = outcome.run
    return {
        "seed": run.seed,
        "figures": outcome.figures,
        "null": outcome.null,
        "operations": run.operations,
        "pool_bytes": run.pool_bytes,
        "pool_wanted_bytes": run.pool_wanted_bytes,
        **{
            moment: {key: int(values[0]) for key, values in _series(sample).items()}
            for moment, sample in (("start", run.start), ("filled", run.filled), ("after", run.after))
        },
        "nodes": {moment: [_node(node) for node in nodes] for moment, nodes in run.nodes.items()},
        "series": {"time_ns": run.times.tolist(), **{key: v.tolist() for key, v in _series(run.samples).items()}},
        "ready": {key: values.tolist() for key, values in _series(run.ready).items()},
    }


def _node(node: NodeUsage) -> dict[str, int]:
    """Return what a node has: bytes end in `_bytes`."""
    counts = ("free_2m", "numa_hit", "numa_miss", "numa_foreign")
    return {key if key in counts else f"{key}_bytes": value for key, value in asdict(node).items()}


def _series(samples: Any) -> dict[str, Any]:
    """Return each field of MEASURE or MEASURE_GUESTS records by its key: pages become bytes, counts stay."""
    fields = samples.dtype.names or ()
    return {
        field if field in _COUNTS else f"{field}_bytes": np.atleast_1d(samples[field]) * (1 if field in _COUNTS else PAGE_SIZE)
        for field in fields
    }
