"""The null model: what simple arithmetic says, from the events and sizes alone, without simulating any memory.

It stands beside the simulated figures. Where both agree, nobody needs the simulation. It knows no free lists, no
placement, no folios, no pins and no time order within a guest; every formula is in the docstring of its function.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.layout import (
    BLOCK_PAGES,
    GIGA_BLOCKS,
    OP_CREATE,
    OP_DESTROY,
    OP_READY,
    OP_SAMPLE,
    OP_TO_SHARED,
    PAGE_SIZE,
)
from gmemlab.lab.figures import Figures
from gmemlab.policy import Policy
from gmemlab.workload.trace import Trace

Ints = NDArray[np.int64]

BLOCK_SIZE: Final = BLOCK_PAGES * PAGE_SIZE
GIGA_SIZE: Final = GIGA_BLOCKS * BLOCK_SIZE
NULL_FIGURES: Final = (
    "mapped_2m_ready",
    "mapped_2m_mean",
    "mapped_2m_end",
    "peak_host_per_guest",
    "free_2m_start",
    "free_2m_end",
    "free_2m_after",
    "free_1g_start",
    "free_1g_end",
    "free_1g_after",
    "launches_failed",
)
_VM_SHIFT: Final = 40  # pages of the largest guest fit below
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class _Lives:
    """When guests exist: created, ready (or never) and destroyed (or never), ns by guest; and their sizes in bytes."""

    created: Ints
    ready: Ints
    destroyed: Ints
    sizes: Ints


@dataclass(frozen=True, eq=False)
class _Places:
    """Distinct ranges that were ever converted to shared: guest, first conversion (ns), pages; by guest and time."""

    vm: Ints
    time: Ints
    pages: Ints


def expect(trace: Trace, policy: Policy, free_bytes: int, usable_bytes: int, pool_bytes: int | None) -> Figures:
    """Return what simple arithmetic expects, by the keys of ``NULL_FIGURES``.

    Args:
        trace: the events.
        policy: how guests' memory is backed.
        free_bytes: of the host, before its pool is filled.
        usable_bytes: of these, what allocations can have.
        pool_bytes: what the policy's pool is to hold; None without one.
    """
    lives = _lives(trace)
    places = _shared_places(trace)
    pool_bytes = None if pool_bytes is None else min(pool_bytes, usable_bytes)
    ratio = host_per_guest(trace, policy, lives, places, pool_bytes)
    return {
        **coverage(trace, policy, lives, places),
        "peak_host_per_guest": ratio,
        **huge_pages_left(trace, lives, free_bytes, pool_bytes, ratio or 0.0),
        "launches_failed": failed_launches(trace, policy, lives, usable_bytes, pool_bytes, ratio or 0.0),
    }


def coverage(trace: Trace, policy: Policy, lives: _Lives, places: _Places) -> Figures:
    """Return the shares mapped at 2M that the null model expects.

    Every distinct range that a guest ever converts to shared spoils ``ceil(pages / 512)`` blocks of 2M, as if no two of
    them shared a block; nothing heals. The share is 1 - spoiled bytes / guest bytes, where a guest's spoiled bytes are
    capped at its size; 0 for policies without 2M pages, None while there are no guests.

    Args:
        trace: for the times of the samples.
        policy: for its sizes.
        lives: of all guests.
        places: what was shared.
    """
    spoiled = _capped(places, -(-places.pages // BLOCK_PAGES) * BLOCK_SIZE, lives.sizes)
    samples = np.sort(trace.events["time"][(trace.events["vm"] < 0) & (trace.events["op"] == OP_SAMPLE)])
    moments = {
        "mapped_2m_ready": lives.ready[lives.ready < _NEVER],
        "mapped_2m_mean": samples,
        "mapped_2m_end": np.array([trace.duration_ns]),
    }
    figures: Figures = {}
    for key, times in moments.items():
        guests = _alive_sum(times, lives.created, lives.destroyed, lives.sizes)
        broken = _alive_sum(times, places.time, lives.destroyed[places.vm], spoiled)
        weights = np.diff(times, prepend=0) if key == "mapped_2m_mean" else guests
        known = guests > 0
        if not known.any() or not weights[known].any():
            figures[key] = None
        elif policy.sizes[0] < BLOCK_SIZE:
            figures[key] = 0.0
        else:
            figures[key] = float(np.average(1 - broken[known] / guests[known], weights=weights[known]))
    return figures


def host_per_guest(trace: Trace, policy: Policy, lives: _Lives, places: _Places, pool_bytes: int | None) -> float | None:
    """Return the host's bytes per byte of guests at the peak that the null model expects.

    All of a guest's memory is backed, once: 1. If the VMM leaves the private side of shared ranges in place (K12), they
    are backed twice: 1 + shared bytes / guest bytes, each at its largest. A pool is there as a whole: its size / the
    largest sum of live guests' sizes. None without guests.

    Args:
        trace: for the largest sum of live guests' sizes.
        policy: for its source and what its VMM punches.
        lives: of all guests.
        places: what was shared.
        pool_bytes: what the pool is to hold; None without one.
    """
    if not trace.peak_guest_bytes:
        return None
    if pool_bytes is not None:
        return max(1.0, pool_bytes / trace.peak_guest_bytes)
    if policy.conversion != "two-sources" or policy.vmm_punch in ("private", "both"):
        return 1.0
    shared = _capped(places, places.pages * PAGE_SIZE, lives.sizes)
    most = _alive_sum(np.sort(places.time), places.time, lives.destroyed[places.vm], shared).max(initial=0)
    return 1.0 + min(1.0, float(most) / trace.peak_guest_bytes)


def huge_pages_left(trace: Trace, lives: _Lives, free_bytes: int, pool_bytes: int | None, ratio: float) -> Figures:
    """Return the 2M and 1G pages to be had that the null model expects: free bytes / size, as if all lay side by side.

    It knows of no zones: 1G pages, which do not come from ZONE_MOVABLE, are too many on hosts that have one.

    At the start: free bytes. After all guests have left: less the pool and the host's own background files. At the end:
    also less the bytes of the guests that are still there, unless they live in the pool.

    Args:
        trace: for the background files.
        lives: of all guests.
        free_bytes: of the host, before its pool is filled.
        pool_bytes: what the pool is to hold; None without one.
        ratio: host bytes per byte of guests, without a pool.
    """
    after = max(0, free_bytes - (pool_bytes or 0) - sum(trace.background_pages) * PAGE_SIZE)
    last = np.array([trace.duration_ns])
    alive = 0
    if pool_bytes is None:
        alive = int(_alive_sum(last, lives.created, lives.destroyed, lives.sizes)[0] * ratio)
    figures: Figures = {}
    for moment, left in (("start", free_bytes), ("end", max(0, after - alive)), ("after", after)):
        figures[f"free_2m_{moment}"] = left // BLOCK_SIZE
        figures[f"free_1g_{moment}"] = left // GIGA_SIZE
    return figures


def failed_launches(
    trace: Trace, policy: Policy, lives: _Lives, usable_bytes: int, pool_bytes: int | None, ratio: float
) -> int:
    """Return the launches that the null model expects to fail: guests that do not fit by their bytes when they come.

    A guest needs its size, in whole pages of the policy (times `ratio` without a pool), for as long as it lives; all of
    them have the pool, or the usable bytes less the host's background files. There is no fragmentation.

    Args:
        trace: for the background files.
        policy: for its smallest page.
        lives: of all guests.
        usable_bytes: free bytes that allocations can have.
        pool_bytes: what the pool is to hold; None without one.
        ratio: host bytes per byte of guests, without a pool.
    """
    needs = -(-lives.sizes // policy.unit) * policy.unit
    room = pool_bytes
    if room is None:
        needs = (needs * ratio).astype(np.int64)
        room = usable_bytes - sum(trace.background_pages) * PAGE_SIZE
    live: list[tuple[int, int]] = []
    failed = 0
    for vm in np.argsort(lives.created, kind="stable").tolist():
        now, need = int(lives.created[vm]), int(needs[vm])
        live = [(end, size) for end, size in live if end > now]
        if sum(size for _, size in live) + need > room:
            failed += 1
        else:
            live.append((int(lives.destroyed[vm]), need))
    return failed


def _lives(trace: Trace) -> _Lives:
    events = trace.events
    times = {}
    for op in (OP_CREATE, OP_READY, OP_DESTROY):
        moments = np.full(len(trace.guests), _NEVER, dtype=np.int64)
        chosen = events[(events["op"] == op) & (events["vm"] >= 0)]
        moments[chosen["vm"]] = chosen["time"]
        times[op] = moments
    return _Lives(times[OP_CREATE], times[OP_READY], times[OP_DESTROY], trace.guests["pages"].astype(np.int64) * PAGE_SIZE)


def _shared_places(trace: Trace) -> _Places:
    shared = trace.events[(trace.events["op"] == OP_TO_SHARED) & (trace.events["vm"] >= 0)]
    keys = shared["vm"].astype(np.int64) << _VM_SHIFT | shared["first"]
    _, firsts = np.unique(keys, return_index=True)  # events ascend in time: the first of equal ones is the earliest
    chosen = shared[firsts]
    chosen = chosen[np.lexsort((chosen["time"], chosen["vm"]))]
    return _Places(*(chosen[name].astype(np.int64) for name in ("vm", "time", "count")))


def _capped(places: _Places, sizes: Ints, caps: Ints) -> Ints:
    """Return how much each place adds (bytes) if a guest's sum is capped; places come by guest."""
    sums = np.cumsum(sizes)
    starts = np.searchsorted(places.vm, places.vm)  # index of the guest's first place
    base = sums[starts] - sizes[starts] if len(sums) else sums
    caps = caps[places.vm]
    within = np.minimum(sums - base, caps)
    before = np.minimum(sums - base - sizes, caps)
    added: Ints = within - before
    return added


def _alive_sum(times: Ints, begin: Ints, end: Ints, values: Ints) -> NDArray[np.float64]:
    """Return, for each time, the sum of the values that have begun by then and not ended."""

    def reached(moments: Ints) -> NDArray[np.float64]:
        """For each time, the sum of the values whose moment has come."""
        order = np.argsort(moments, kind="stable")
        sums = np.concatenate([[0.0], np.cumsum(values[order], dtype=np.float64)])
        return sums[np.searchsorted(moments[order], times, side="right")]

    return reached(begin) - reached(np.maximum(begin, end))
