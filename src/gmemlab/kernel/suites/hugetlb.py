"""The suite `hugetlb`: files of 2 MiB pool pages: reservations, rounding, pool counters, pins (L18, L19)."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles, pool_counters
from gmemlab.kernel.suites.plans import BLOCK, Plan
from gmemlab.kernel.suites.steps import PAGE, Step

PAGES: Final = 6  # of 2 MiB: three files of up to three of them are short of some now and then
SETTING: Final = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
SIZES: Final = (BLOCK, 2 * BLOCK, 3 * BLOCK)
WEIGHTS: Final = {"allocate": 20, "punch": 35, "write": 20, "reserve": 8, "pin": 8, "unpin": 8, "close": 3}


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return Plan(random, SIZES, WEIGHTS, past_end=False).steps(count)


def live(settings: Settings) -> tuple[LiveFiles, dict[str, Any]]:
    """Files of hugetlb, and a pool with a few idle pages beside those that others use."""
    pool = read_pool(BLOCK * PAGE).whole
    if pool.reserved:
        raise UnsupportedError("hugetlb pool of 2M pages", f"{pool.reserved} of its pages are promised to others")
    used = pool.total - pool.free
    if int(settings.set(SETTING, used + PAGES)) < used + PAGES:
        raise UnsupportedError("hugetlb pool of 2M pages", f"{PAGES} idle pages cannot be had")
    return LiveFiles("hugetlb", pool_counters), {"pages": PAGES, "used": used}
