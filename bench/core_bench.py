"""Speed and size of the core: `make bench`.

Times are medians of several runs, warm; ratios are against a reference timed in the same run, a page-by-page loop over a
plain array (the least that touching every page can cost in compiled code).

Figures of others are quoted from their own measurements on another machine (a 2-vCPU EPYC VM): llfree-c bulk order 0
37.5 ns get, 24.6 ns put, random put+get 305 ns at order 0 and 124.8 ns at order 9.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import loops
import numpy as np

from gmemlab.core import execute, layout, tables
from gmemlab.core.layout import BLOCK_ORDER
from gmemlab.model import machine
from gmemlab.model.host import Host
from gmemlab.model.policies import KINDS
from gmemlab.model.room import BLOCK_SIZE
from gmemlab.presets import find

GIB: Final = 1 << 30
PAGES_8G: Final = 8 * GIB // 4096
LATENCY_READS: Final = 1_000_000
RUNS: Final = 5


def median(call: Callable[[], float], runs: int = RUNS) -> float:
    """Median of what several runs return (seconds)."""
    return sorted(call() for _ in range(runs))[runs // 2]


def show(what: str, value: float, unit: str, bar: float | None, reference: float | None = None) -> None:
    """One line: the figure, its bar, and its ratio against the reference of this run."""
    goal = "" if bar is None else f"   bar {bar:g} {unit}{'' if value <= bar else '   MISSED'}"
    ratio = "" if reference is None else f"   {value / reference:6.1f} x the reference"
    print(f"{what:<58}{value:>9.1f} {unit}{goal}{ratio}", flush=True)


def reference() -> float:
    """Nanoseconds per page of the reference loop: writing one record of 16 bytes per page, in order."""
    table = np.zeros(PAGES_8G, tables.FRAME).view(np.recarray)
    loops.touch(table)

    def once() -> float:
        start = time.perf_counter()
        loops.touch(table)
        return time.perf_counter() - start

    return median(once) / PAGES_8G * 1e9


def latency() -> float:
    """Nanoseconds for a read that waits for the one before, anywhere in 512 MiB: what a large host's records cost."""
    lines = (512 << 20) // 64
    order = np.random.default_rng(0).permutation(lines)
    nexts = np.zeros((lines, 8), dtype=np.int64)  # a cache line each
    nexts[order, 0] = np.roll(order, -1)
    row = loops.chase(nexts, 0, 1)

    def once() -> float:
        nonlocal row
        start = time.perf_counter()
        row = loops.chase(nexts, row, LATENCY_READS)
        return time.perf_counter() - start

    return median(once) / LATENCY_READS * 1e9


def bulk(ref: float) -> None:
    """Order-0 bulk allocation and free of 8 GiB, page by page, in the buddy allocator alone."""
    state = machine.empty(4096 + 128)
    pfns = np.zeros(PAGES_8G, dtype=np.int64)
    times: list[tuple[float, float]] = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        loops.allocate_all(state, pfns)
        middle = time.perf_counter()
        loops.free_all(state, pfns)
        times.append((middle - start, time.perf_counter() - middle))
    for name, column in (("allocate", 0), ("free", 1)):
        value = sorted(pair[column] for pair in times[1:])[RUNS // 2] / PAGES_8G * 1e9
        show(f"bulk order-0 {name}, 8 GiB", value, "ns", 25, ref)


def random_pairs(order: int, gib: int, ref: float) -> None:
    """Random free + allocate with half the frames randomly free and up to 65,536 frees ahead of each allocation.

    Each chunk is freed once, in random order, and the list of them is read from its start: with places drawn at random in it,
    its own cache misses would be counted as the allocator's.
    """
    blocks = gib * GIB // BLOCK_SIZE
    state = machine.empty(blocks + blocks // 32)
    pfns = np.zeros(blocks << (BLOCK_ORDER - order), dtype=np.int64)
    loops.allocate_order(state, pfns, order)
    pfns = np.random.default_rng(1).permutation(pfns)
    half = len(pfns) // 2
    ahead = min(65536, half // 2)
    loops.free_order(state, pfns[: half + ahead], order)
    rest = pfns[half + ahead :].copy()
    start = time.perf_counter()
    loops.free_and_allocate(state, rest, order)
    value = (time.perf_counter() - start) / len(rest) * 1e9
    show(f"random order-{order} pairs in {gib} GiB, half free, {ahead:,} ahead", value, "ns", 300, ref)


def page_by_page(ref: float) -> None:
    """A 4K file of 4 GiB, populated and punched with one call per page; and in one call (uniform)."""
    host = Host("9G")
    pages = PAGES_8G // 2
    row = host.policy_row(find("4k"))
    _, file = execute.open_guest(host.state, pages, KINDS["guest_memfd"], row, 0, 0)
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        loops.populate_each(host.state, file, pages)
        middle = time.perf_counter()
        loops.punch_each_page(host.state, file, pages)
        times.append((middle - start, time.perf_counter() - middle))
    populate = sorted(pair[0] for pair in times[1:])[RUNS // 2] / pages * 1e9
    punch = sorted(pair[1] for pair in times[1:])[RUNS // 2] / pages * 1e9
    show("4K file, page by page: populate", populate, "ns", 40, ref)
    show("4K file, page by page: punch", punch, "ns", 40, ref)

    def uniform() -> float:
        start = time.perf_counter()
        execute.execute(host.state, layout.OP_ALLOCATE, file, 0, pages, 0)
        execute.execute(host.state, layout.OP_PUNCH, file, 0, pages, 0)
        return time.perf_counter() - start

    show("4K file, uniform: populate and punch, per page", median(uniform) / pages * 1e9, "ns", None, ref)


def compaction(ref: float) -> None:
    """Compaction of all of a host of which half is free, a tenth of that in 2M: per page moved, however large the host is."""
    for size in ("16G", "256G"):
        host = Host(size, fragmentation=0.9, seed=1)
        start = time.perf_counter()
        moved = host.compact()
        show(f"compaction of {size}, {moved:,} pages moved, each", (time.perf_counter() - start) / moved * 1e9, "ns", None, ref)


def large_host() -> None:
    """Host("12T") filled to 90 % by 2M guests: time and resident memory, in a fresh process."""
    code = "import core_bench; core_bench.fill_large_host()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rsplit("/", 1)[0])


def fill_large_host() -> None:
    """What `large_host` measures."""
    warm = Host("1G")
    warm.guest_memfd("64M", "thp").allocate()
    start = time.perf_counter()
    host = Host("12T")
    guest = 64 * GIB
    for _ in range(int(host.total_bytes * 0.9) // guest):
        host.guest_memfd(guest, "thp").allocate()
    show('Host("12T") filled to 90 % by 2M guests of 64G', time.perf_counter() - start, "s", 1)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0])  # ru_maxrss would have that of the process that started this one, too
    show("    peak resident memory", peak / 1024, "MiB", 512)


def small_guests() -> None:
    """1 TiB of 4K guests populated and released on an empty host."""
    host = Host("1100G")

    def once() -> float:
        start = time.perf_counter()
        guests = [host.guest_memfd(16 * GIB, "4k") for _ in range(64)]
        for guest in guests:
            guest.allocate()
        for guest in guests:
            guest.close()
        return time.perf_counter() - start

    show("1 TiB of 4K guests populated and released", median(once, 3), "s", 2)


def main() -> None:
    """Print all figures."""
    loops.compile_all()
    ref = reference()
    show("reference: write 16 bytes per page, in order", ref, "ns", None)
    bulk(ref)
    random_pairs(0, 8, ref)
    random_pairs(9, 8, ref)  # 8 GiB are 4,096 blocks: fewer than 65,536 can be ahead
    random_pairs(9, 512, ref)
    page_by_page(ref)
    compaction(ref)
    small_guests()
    large_host()


if __name__ == "__main__":
    main()
