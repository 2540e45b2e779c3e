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
_PAGES_LEFT: Final = 1024
_PAGES_FREED: Final = 1024  # on each CPU, each of which lets 63 go at least of a list that is too long
_WAIT_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.05
_PAGE: Final = 4096


def quiet(settings: Settings, root: Path = _LIVE) -> int:
    """Make free memory and huge pages countable while ``settings`` is active, after at most about 2 s.

    Return how many 4 KiB pages the per-CPU lists still hide from MemFree and /proc/buddyinfo (up to 252 for each CPU and
    zone stay there).

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
    while (hidden := hidden_pages(root)) > _PAGES_LEFT and time.monotonic() < deadline:
        if root == _LIVE:
            shorten_lists()
        time.sleep(_POLL_SECONDS)
    return hidden


def shorten_lists() -> None:
    """Free some pages on each CPU: one that is idle keeps for half a minute what it had when its lists might be longer.

    Only a free has it compare them with the new limit at once (`nr_pcp_high`, `nr_pcp_free` in mm/page_alloc.c); what the
    vmstat worker lets go is an eighth of the old limit each second (`decay_pcp_high`).
    """
    for cpu in os.sched_getaffinity(0):
        with on_cpu(cpu), mmap.mmap(-1, _PAGES_FREED * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
            for offset in range(0, len(memory), _PAGE):
                memory[offset] = 1


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
    """Run on one CPU only.

    Args:
        cpu: its number.
    """
    cpus = os.sched_getaffinity(0)
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
