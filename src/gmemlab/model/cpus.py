"""The CPUs of a modelled host: how many pages each keeps on its lists (mm/page_alloc.c, 6.18)."""

from collections.abc import Sequence
from math import isqrt
from typing import Final

from gmemlab.core import layout
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.state import State
from gmemlab.errors import UsageError

MOST_AT_ONCE: Final = 64  # pages: 256 KiB
LEAST_HIGH: Final = 4  # batches
HIGH_FRACTION: Final = 8  # MIN_PERCPU_PAGELIST_HIGH_FRACTION: of a zone, shared by its CPUs


def check_cpus(cpus: int) -> None:
    """See that it is a number of CPUs.

    Raises:
        UsageError: it is none of 0 to 512.
    """
    if not isinstance(cpus, int) or isinstance(cpus, bool) or not 0 <= cpus <= layout.MAX_CPUS:
        raise UsageError("not a number of CPUs", key="cpus", value=cpus, allowed=f"0 (no lists) to {layout.MAX_CPUS}")


def batch_size(managed: int) -> int:
    """Pages that a CPU takes or gives back at once (`zone_batchsize`): 63, less in zones below 256 MiB."""
    batch = min(managed >> 12, MOST_AT_ONCE)
    return 1 if batch <= 1 else (1 << (batch + batch // 2).bit_length() - 1) - 1


def watermarks(managed: int) -> tuple[int, int, int]:
    """Min, low and high of a machine of one zone, in pages: with huge pages on, at least two free blocks of each type (6.18).

    `init_per_zone_wmark_min`, raised by `set_recommended_min_free_kbytes`, then `__setup_per_zone_wmarks`.
    """
    least = min(max(isqrt(managed * 4 * 16), 128), 262144) // 4
    recommended = min(BLOCK_PAGES * (2 + 9), managed // 20)
    lowest = max(least, recommended)
    step = max(lowest // 4, managed // 1000)
    return lowest, lowest + step, lowest + 2 * step


def low_watermark(managed: int) -> int:
    """The low one."""
    return watermarks(managed)[1]


def give_watermarks(state: State) -> None:
    """Give a machine of one zone that has none the watermarks that Linux would compute."""
    record = state.zones[0]
    least, low, high = watermarks(int(record.end - record.start) * BLOCK_PAGES)
    record.wmark_min = record.reserve = least
    record.low, record.high = low - least, high - least
    state.host[0].watermarks = 1


def give_cpus(state: State, cpus: int, low_pages: Sequence[int] | None = None) -> None:
    """Have CPUs keep lists of their own from here on.

    Args:
        state: of a host in which nothing is on such lists yet.
        cpus: how many; 0 for none.
        low_pages: each zone's low watermark; what Linux would compute if None.
    """
    state.host[0].nr_cpus = cpus
    for zone in range(int(state.host[0].nr_zones)):
        record = state.zones[zone]
        managed = int(record.end - record.start) * BLOCK_PAGES
        batch = batch_size(managed)
        low = low_watermark(managed) if low_pages is None else low_pages[zone]
        for cpu in range(cpus):
            pcp = state.pcps[zone * layout.MAX_CPUS + cpu]
            pcp.batch = batch
            pcp.high_min = max(low // cpus, LEAST_HIGH * batch)
            pcp.high_max = max(managed // HIGH_FRACTION // cpus, LEAST_HIGH * batch)
