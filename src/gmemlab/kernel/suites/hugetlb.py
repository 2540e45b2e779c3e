"""The suite `hugetlb`: files of 2 MiB pool pages: reservations, rounding, pool counters, surplus, pins (L18, L19)."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles, pool_counters
from gmemlab.kernel.suites.plans import BLOCK, Plan
from gmemlab.kernel.suites.steps import PAGE, Step

PAGES: Final = 6  # of 2 MiB: three files of up to three of them are short of some now and then
FOLDER: Final = "sys/kernel/mm/hugepages/hugepages-2048kB"
SETTING: Final = f"{FOLDER}/nr_hugepages"
OVERCOMMIT: Final = f"{FOLDER}/nr_overcommit_hugepages"
MOST_SURPLUS: Final = 3
SIZES: Final = (BLOCK, 2 * BLOCK, 3 * BLOCK)
WEIGHTS: Final = {"allocate": 20, "punch": 35, "write": 20, "reserve": 8, "pool": 4, "pin": 8, "unpin": 8, "close": 3}


class PoolPlan(Plan):
    """Adds new sizes of the pool: `size` is how many pages, `arg` how many surplus ones it may have."""

    def step(self, op: str, file: int) -> Step:
        """One operation on a file, or on the pool."""
        if op == "pool":
            return Step(op, file, 0, self.random.randint(0, PAGES + 2) * PAGE, self.random.randint(0, MOST_SURPLUS))
        return super().step(op, file)


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return PoolPlan(random, SIZES, WEIGHTS, past_end=False).steps(count)


class LiveHugetlb(LiveFiles):
    """Files of hugetlb, and their pool."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("hugetlb", pool_counters)
        self.settings = settings
        self.actions["pool"] = self.set_pool

    def set_pool(self, file: LiveMemory, step: Step) -> None:
        """Give the pool its size; the kernel takes what it cannot have for as much as it can."""
        self.settings.set(OVERCOMMIT, step.arg)
        self.settings.set(SETTING, step.size // PAGE)


def live(settings: Settings) -> tuple[LiveHugetlb, dict[str, Any]]:
    """Files of hugetlb, and a pool with a few idle pages."""
    refuse_used_pool()
    settings.set(OVERCOMMIT, 0)
    if int(settings.set(SETTING, PAGES)) < PAGES:
        raise UnsupportedError("hugetlb pool of 2M pages", f"{PAGES} idle pages cannot be had")
    return LiveHugetlb(settings), {"pages": PAGES}


def refuse_used_pool() -> None:
    """Leave a pool alone that others use. Raises UnsupportedError."""
    pool = read_pool(BLOCK * PAGE).whole
    if pool.reserved or pool.total > pool.free:
        raise UnsupportedError("hugetlb pool of 2M pages", f"{pool.total - pool.free + pool.reserved} of its pages are others'")
