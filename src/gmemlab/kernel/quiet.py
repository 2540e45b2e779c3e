"""Keep the kernel's helpers from changing what is counted: per-CPU page lists and khugepaged (section 0 of live-kernel)."""

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from gmemlab.kernel.features import read_required
from gmemlab.kernel.procfs import parse_zoneinfo
from gmemlab.kernel.settings import Settings

_LIVE: Final = Path("/")
_LISTS: Final = "proc/sys/vm/percpu_pagelist_high_fraction"
SMALLEST_LISTS: Final = 1_000_000  # a divisor of the zone's size; 0, the default, lets the kernel choose
_THP: Final = "sys/kernel/mm/transparent_hugepage"
# khugepaged fills punched holes with zero pages (L15), unless it may add none. The write to the interval wakes it once, so it
# comes last; the shrinker would split huge pages that hold zeros once max_ptes_none is not 511 (L17), so it goes first.
_HELPERS: Final = (
    (f"{_THP}/shrink_underused", 0),
    (f"{_THP}/khugepaged/max_ptes_none", 0),
    (f"{_THP}/khugepaged/scan_sleep_millisecs", 3_600_000),
)
_LONGEST_LIST: Final = 252  # four batches of 63: what a CPU keeps of a zone at most then
_PAGES_FREED: Final = 1024  # on each CPU; each lets a batch go at least of a list that is too long
_WAIT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.05
_PAGE: Final = 4096


def quiet(settings: Settings, root: Path = _LIVE) -> int:
    """Make free memory and huge pages countable while ``settings`` is active, after at most about 2 s.

    Return how many 4 KiB pages the per-CPU lists still hide from MemFree and /proc/buddyinfo: up to 252 for each CPU and zone
    stay there, and more of zones that nothing is freed to meanwhile.

    Args:
        settings: puts everything back when it is left.
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: not root, or a kernel before 5.14.
        UsageError: another process has changed one of these settings.
    """
    for path, value in _HELPERS:
        if (root / path).exists():
            settings.set(path, value)
    settings.set(_LISTS, SMALLEST_LISTS)
    deadline = time.monotonic() + _WAIT_SECONDS
    before = 0
    while (longest := longest_list(root)) > _LONGEST_LIST and time.monotonic() < deadline:
        if root == _LIVE and longest != before:  # else these are lists that it does not reach
            free_on_each_cpu(_PAGES_FREED)
        before = longest
        time.sleep(_POLL_SECONDS)
    return hidden_pages(root)


def free_on_each_cpu(pages: int) -> None:
    """Have each CPU free some 4 KiB pages, of whatever zone it allocates from.

    Only a free has a CPU compare the list of that zone with its limit at once (`nr_pcp_high`, `nr_pcp_free` in
    mm/page_alloc.c); an idle one lets go of an eighth of what was its limit each second (`decay_pcp_high`).

    Args:
        pages: how many on each.
    """
    for cpu in os.sched_getaffinity(0):
        with on_cpu(cpu), mmap.mmap(-1, pages * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            with suppress(OSError):  # a kernel without huge pages
                memory.madvise(mmap.MADV_NOHUGEPAGE)
            for offset in range(0, len(memory), _PAGE):
                memory[offset] = 1


def longest_list(root: Path = _LIVE) -> int:
    """Return how many pages one CPU keeps of one zone, at most.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: /proc/zoneinfo cannot be read.
    """
    zones = parse_zoneinfo(read_required(root, "proc/zoneinfo"))
    return max((count for zone in zones for count in zone.pcp_counts), default=0)


def hidden_pages(root: Path = _LIVE) -> int:
    """Return how many free 4 KiB pages are on the per-CPU lists.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: /proc/zoneinfo cannot be read.
    """
    return sum(sum(zone.pcp_counts) for zone in parse_zoneinfo(read_required(root, "proc/zoneinfo")))


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Run on one CPU only, if it is still there.

    Args:
        cpu: its number.
    """
    cpus = os.sched_getaffinity(0)
    with suppress(OSError):
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        with suppress(OSError):  # a cgroup may have taken CPUs away meanwhile
            os.sched_setaffinity(0, cpus)


@contextmanager
def on_one_cpu() -> Iterator[None]:
    """The same for the first one: pages that it gave back are on its own lists, where it finds them again (L21)."""
    with on_cpu(min(os.sched_getaffinity(0))):
        yield
