"""Speed and size of the core: `make bench`.

Times are those of a processor that nobody else shares, told apart by `full_speed`, where the line does not say otherwise; what
they were as it ran stands beside.
Ratios are against a reference timed in the same run, a page-by-page loop over a plain array (the least that touching every page
can cost in compiled code).

Figures of others are quoted from their own measurements on another machine (a 2-vCPU EPYC VM): llfree-c bulk order 0
37.5 ns get, 24.6 ns put, random put+get 305 ns at order 0 and 124.8 ns at order 9.
"""

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

import loops
from full_speed import Figure, Stretches, calibrate, until_enough
from gmemlab.core import execute, layout, tables
from gmemlab.core.layout import BLOCK_ORDER
from gmemlab.model import machine
from gmemlab.model.host import Host
from gmemlab.model.policies import KINDS
from gmemlab.model.room import BLOCK_SIZE
from gmemlab.presets import find

GIB: Final = 1 << 30
PAGES_8G: Final = 8 * GIB // 4096
# In one stretch:
PAGES: Final = 16384
PAIRS: Final = 2048
READS: Final = 20_000


def show(what: str, value: float, unit: str, bar: float | None, reference: float | None = None, note: str = "") -> None:
    """One line: the figure, its bar, and its ratio against the reference of this run."""
    goal = "" if bar is None else f"   bar {bar:g} {unit}{'' if value <= bar else '   MISSED'}"
    ratio = "" if reference is None else f"   {value / reference:6.1f} x the reference"
    print(f"{what:<58}{value:>9.1f} {unit}{goal}{ratio}{note}", flush=True)


def show_time(what: str, figure: Figure, unit: str, bar: float | None, reference: float | None = None) -> None:
    """The same of a time, in ns or s, with what it was as it ran, which is held against the bar as well."""
    scale = {"ns": 1e9, "s": 1.0}[unit]
    full = f"{figure.share:.0%} at full speed"
    missed = ", MISSED" if bar is not None and figure.ran * scale > bar else ""
    ran = f" {figure.ran * scale:.1f}{missed}; {full}" if figure.enough else f": {full} is too little"
    show(what, figure.value * scale, unit, bar, reference, f"   (as it ran{ran})")


def reference() -> Figure:
    """Writing one record of 16 bytes per page, in order, for each page."""
    table = np.zeros(PAGES_8G, tables.FRAME).view(np.recarray)
    writes = Stretches()

    def write() -> None:
        for row in range(0, PAGES_8G, PAGES):
            writes.time(PAGES, loops.touch, table[row : row + PAGES])

    until_enough(write, writes)
    return writes.figure()


def latency() -> Figure:
    """A read that waits for the one before, anywhere in 512 MiB: what a large host's records cost."""
    lines = (512 << 20) // 64
    order = np.random.default_rng(0).permutation(lines)
    nexts = np.zeros((lines, 8), dtype=np.int64)  # a cache line each
    nexts[order, 0] = np.roll(order, -1)
    reads = Stretches()
    place = 0

    def read() -> None:
        nonlocal place
        reads.time(READS, loops.chase, nexts, int(order[place]), READS)
        place = (place + READS) % lines  # no line is read again before all others are

    until_enough(read, reads)
    return reads.figure()


def bulk(ref: float) -> None:
    """Order-0 bulk allocation and free of 8 GiB, page by page, in the buddy allocator alone."""
    state = machine.empty(4096 + 128)
    pfns = np.zeros(PAGES_8G, dtype=np.int64)
    allocations, frees = Stretches(), Stretches()

    def both() -> None:
        for times, loop in ((allocations, loops.allocate_order), (frees, loops.free_order)):
            for row in range(0, PAGES_8G, PAGES):
                times.time(PAGES, loop, state, pfns[row : row + PAGES], 0)

    until_enough(both, allocations, frees)
    show_time("bulk order-0 allocate, 8 GiB", allocations.figure(), "ns", 25, ref)
    show_time("bulk order-0 free, 8 GiB", frees.figure(), "ns", 25, ref)


def random_pairs(order: int, gib: int, ref: float) -> None:
    """Random free + allocate with half the frames randomly free and up to 65,536 frees ahead of each allocation.

    Each pass starts anew. Each chunk is freed once in it, in random order, and the list of them is read from its start: with
    places drawn at random in it, its own cache misses would be counted as the allocator's.
    """
    blocks = gib * GIB // BLOCK_SIZE
    state = machine.empty(blocks + blocks // 32)
    pfns = np.zeros(blocks << (BLOCK_ORDER - order), dtype=np.int64)
    half = len(pfns) // 2
    ahead = min(65536, half // 2)
    rest = pfns[:0]
    pairs = Stretches()

    def free_and_allocate() -> None:
        nonlocal rest
        loops.free_order(state, rest, order)
        loops.allocate_order(state, pfns, order)
        shuffled = np.random.default_rng(1).permutation(pfns)
        loops.free_order(state, shuffled[: half + ahead], order)
        rest = shuffled[half + ahead :]
        for row in range(0, len(rest), PAIRS):
            some = rest[row : row + PAIRS]
            pairs.time(len(some), loops.free_and_allocate, state, some, order)

    until_enough(free_and_allocate, pairs)
    show_time(f"random order-{order} pairs in {gib} GiB, half free, {ahead:,} ahead", pairs.figure(), "ns", 300, ref)


def page_by_page(ref: float) -> None:
    """A 4K file of 4 GiB, populated and punched with one call per page; and in one call (uniform)."""
    host = Host("9G")
    pages = PAGES_8G // 2
    row = host.policy_row(find("4k"))
    _, file = execute.open_guest(host.state, pages, KINDS["guest_memfd"], row, 0, 0)
    populates, punches, uniform = Stretches(), Stretches(), Stretches()

    def both() -> None:
        for times, loop in ((populates, loops.populate_each), (punches, loops.punch_each_page)):
            for first in range(0, pages, PAGES):
                times.time(PAGES, loop, host.state, file, first, first + PAGES)

    def all_at_once() -> None:
        execute.execute(host.state, layout.OP_ALLOCATE, file, 0, pages, 0)
        execute.execute(host.state, layout.OP_PUNCH, file, 0, pages, 0)

    until_enough(both, populates, punches)
    show_time("4K file, page by page: populate", populates.figure(), "ns", 40, ref)
    show_time("4K file, page by page: punch", punches.figure(), "ns", 40, ref)
    until_enough(lambda: uniform.time(pages, all_at_once), uniform)
    show_time("4K file, uniform: populate and punch, per page", uniform.figure(), "ns", None, ref)


def compaction(ref: float) -> None:
    """Compaction of all of a host of which half is free, a tenth of that in 2M: per page moved, however large the host is."""
    for size in ("16G", "256G"):
        host = Host(size, fragmentation=0.9, seed=1)
        start = time.perf_counter()
        moved = host.compact()
        seconds = time.perf_counter() - start
        show(f"compaction of {size}, {moved:,} pages moved, each", seconds / moved * 1e9, "ns", None, ref, "   (as it ran)")


def large_host() -> None:
    """Host("12T") filled to 90 % by 2M guests: time and resident memory, in a fresh process."""
    code = "import core_bench; core_bench.fill_large_host()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=__file__.rsplit("/", 1)[0])


def fill_large_host() -> None:
    """What `large_host` measures: a host is made and filled several times; memory is that of the first time."""
    warm = Host("1G")
    warm.guest_memfd("64M", "thp").allocate()
    calibrate()
    times = Stretches()
    peaks: list[int] = []  # KiB

    def fill() -> None:
        hosts: list[Host] = []
        times.time(1, lambda: hosts.append(Host("12T")))
        for _ in range(int(hosts[0].total_bytes * 0.9) // (64 * GIB)):
            times.time(1, lambda: hosts[0].guest_memfd(64 * GIB, "thp").allocate())
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        peaks.append(int(status["VmHWM"].split()[0]))  # ru_maxrss would have that of the process that started this one, too

    runs = until_enough(fill, times)
    show_time('Host("12T") filled to 90 % by 2M guests of 64G', times.figure_of_runs(runs), "s", 1)
    show("    peak resident memory", peaks[0] / 1024, "MiB", 512)


def small_guests() -> None:
    """1 TiB of 4K guests populated and released on an empty host."""
    host = Host("1100G")
    times = Stretches()

    def populate_and_release() -> None:
        guests = [host.guest_memfd(16 * GIB, "4k") for _ in range(64)]
        for guest in guests:
            times.time(1, guest.allocate)
        for guest in guests:
            times.time(1, guest.close)

    runs = until_enough(populate_and_release, times)
    show_time("1 TiB of 4K guests populated and released", times.figure_of_runs(runs), "s", 2)


def main() -> None:
    """Print all figures."""
    loops.compile_all()
    calibrate()
    writes = reference()
    show_time("reference: write 16 bytes per page, in order", writes, "ns", None)
    ref = writes.value * 1e9
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
