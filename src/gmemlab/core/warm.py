"""Compile the core once and keep the machine code: `python -m gmemlab.core.warm`, at set-up."""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from gmemlab.core import audit, boot, execute, layout, measure, run
from gmemlab.core.jit import prune_cache
from gmemlab.core.state import reserve_state


def entries() -> list[tuple[str, Callable[[], Any]]]:
    """Every entry point by name, with a call on a small state that compiles it."""
    state = reserve_state(64, 1)
    out = np.zeros(1, layout.MEASURE).view(np.recarray)
    none = np.zeros(0, dtype=np.int64)
    events = np.zeros(0, layout.EVENT).view(np.recarray)
    vms = np.zeros(1, layout.VM).view(np.recarray)
    guests = np.zeros(1, layout.GUEST).view(np.recarray)
    cursor = np.zeros(1, layout.CURSOR).view(np.recarray)
    state.policies[1].sizes = 1
    return [
        ("zones", lambda: boot.set_zone(state, 0, 1, 65, layout.ZONE_NORMAL, 0)),
        ("free memory", lambda: boot.free_range(state, 3, 65)),
        ("files", lambda: execute.open_guest(state, 512, layout.KIND_HOST, 1, 0)),
        ("memslots", lambda: execute.bind(state, 1, 0, 0, 512, 0)),
        ("operations", lambda: execute.execute(state, layout.OP_ALLOCATE, 1, 0, 512, 0)),
        ("pools", lambda: execute.fill_pool(state, layout.BLOCK_ORDER, 0, 0)),
        ("pool sizes", lambda: execute.set_pool(state, layout.BLOCK_ORDER, 0, 0)),
        ("demotion", lambda: execute.demote_pages(state, 0)),
        ("placement", lambda: boot.punch_each(state, 1, none, none)),
        ("memory in use", lambda: boot.occupy(state, 1, 1, layout.MOVABLE)),
        ("events", lambda: run.run(state, events, vms, guests, np.zeros(2, dtype=np.int64), 1, cursor, 1)),
        ("samples", lambda: measure.measure(state, out)),
        ("usage", lambda: measure.measure_one(state, 1, out)),
        ("listings", lambda: measure.list_pages(state, 1, 0, np.zeros((512, 5), dtype=np.int64))),
        ("limits", lambda: measure.limit(state, 1, 0)),
        ("audit", lambda: audit.audit(state)),
    ]


def main() -> int:
    """Compile all entry points, telling which and how long it took. Returns the exit code."""
    start = time.perf_counter()
    calls = entries()
    for done, (name, call) in enumerate(calls):
        print(f"\rCompiling the core: {done}/{len(calls)} {name:<16}", end="", file=sys.stderr, flush=True)
        call()
    prune_cache()
    print(f"\rCompiled the core in {time.perf_counter() - start:.0f} s.{' ' * 24}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
