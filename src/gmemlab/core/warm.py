"""Compile the core once and keep the machine code: `python -m gmemlab.core.warm`, at set-up."""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

import numpy as np

from gmemlab.core import audit, boot, execute, layout, measure, parts, run
from gmemlab.core.hardware import places
from gmemlab.core.jit import prune_cache
from gmemlab.core.sample import MEASURE_GUESTS, MEASURE_HOST
from gmemlab.core.state import compiled_type, reserve_state


def entries() -> list[tuple[str, Callable[[], Any]]]:
    """Every entry point by name, with a call on a small state that compiles it."""
    state = reserve_state(64, 1)
    guests_sample = np.zeros(1, MEASURE_GUESTS).view(np.recarray)
    host_sample = np.zeros(1, MEASURE_HOST).view(np.recarray)
    none = np.zeros(0, dtype=np.int64)
    events = np.zeros(0, layout.EVENT).view(np.recarray)
    vms = np.zeros(1, layout.VM).view(np.recarray)
    guests = np.zeros(1, layout.GUEST).view(np.recarray)
    cursor = np.zeros(1, layout.CURSOR).view(np.recarray)
    state.policies[1].sizes = 1
    return [
        ("zones", lambda: boot.set_zone(state, 0, 1, 65, layout.ZONE_NORMAL, 0)),
        ("block types", lambda: boot.set_types(state, 60, 60, layout.CMA)),
        ("free memory", lambda: boot.free_range(state, 3, 65)),
        ("files", lambda: execute.open_guest(state, 512, layout.KIND_HOST, 1, 0, 0)),
        ("memslots", lambda: execute.bind(state, 1, 0, 0, 512, 0)),
        ("operations", lambda: execute.execute(state, layout.OP_ALLOCATE, 1, 0, 512, 0)),
        ("pools", lambda: execute.fill_pool(state, layout.BLOCK_ORDER, 0, 0, 0)),
        ("pool sizes", lambda: execute.set_pool(state, layout.BLOCK_ORDER, 0, 0, -1)),
        ("demotion", lambda: execute.demote_pages(state, 0, 0)),
        ("mounts", lambda: execute.open_mount(state, layout.BLOCK_ORDER, 0, -1)),
        ("mounted files", lambda: execute.join_mount(state, 0, 0)),
        ("mounts that go", lambda: execute.close_mount(state, 1)),
        ("nodes", lambda: execute.bind_nodes(state, 1, 0, 0, 0)),
        ("placement", lambda: boot.punch_each(state, 1, none, none)),
        ("memory in use", lambda: boot.occupy(state, 1, 1, layout.MOVABLE)),
        ("events", lambda: run.run(state, events, vms, guests, np.zeros(2, dtype=np.int64), 1, 0, cursor, 1)),
        ("samples of the host", lambda: measure.measure_host(state, host_sample)),
        ("samples of guests", lambda: measure.measure_guests(state, guests_sample)),
        ("usage", lambda: measure.measure_one(state, 1, guests_sample)),
        ("listings", lambda: measure.list_pages(state, 1, 0, measure.new_listing(512))),
        ("limits", lambda: measure.limit(state, 1, 0)),
        ("limits of shared memory", lambda: measure.limit_of_shared(state, 1, 0)),
        ("places", lambda: places.mark_places(state, np.zeros(65, dtype=np.int64))),
        ("audit", lambda: audit.audit(state)),
    ]


def compile_part(name: str) -> None:
    """Compile one part."""
    parts.compile_part(name, compiled_type())


def compile_entry(name: str) -> None:
    """Compile one entry point, by calling it."""
    dict(entries())[name]()


def compile_each(workers: Executor, compile_one: Callable[[str], None], names: Sequence[str], what: str) -> None:
    """Compile side by side, telling how far it is."""
    jobs = [workers.submit(compile_one, name) for name in names]
    for done, job in enumerate(as_completed(jobs), 1):
        job.result()
        print(f"\rCompiling the core: {what} {done}/{len(jobs)}   ", end="", file=sys.stderr, flush=True)


def main() -> int:
    """Compile all parts, then all entry points, on all processors. Returns the exit code."""
    start = time.perf_counter()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as workers:
        compile_each(workers, compile_part, parts.NAMES, "parts")
        compile_each(workers, compile_entry, [name for name, _ in entries()], "entry points")
    prune_cache()
    print(f"\rCompiled the core in {time.perf_counter() - start:.0f} s.{' ' * 24}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
