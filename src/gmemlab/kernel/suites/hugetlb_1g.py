"""The suite `hugetlb-1g`: a pool of 1 GiB pages, punches inside one, and pages that are demoted to 512 of 2 MiB (L20).

Writing, zeroing and reading a whole page takes a second, so that files are written in a few pages of some of their 2 MiB,
and read at the first byte of each.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.observe.pools import read_pool
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step

GIGA: Final = 1 << 30
HUGE: Final = 2 << 20
PAGES: Final = 2  # of 1 GiB
POOLS: Final = {"1g": GIGA, "2m": HUGE}
FOLDER: Final = "sys/kernel/mm/hugepages"
SETTINGS: Final = {name: f"{FOLDER}/hugepages-{size >> 10}kB/nr_hugepages" for name, size in POOLS.items()}
DEMOTE: Final = Path(f"/{FOLDER}/hugepages-{GIGA >> 10}kB/demote")
# File 0 has two pages of 1 GiB, file 1 has one, file 2 has pages of 2 MiB.
SIZES: Final = (2 * GIGA, GIGA, 8 * HUGE)
UNITS: Final = (GIGA, GIGA, HUGE)
WEIGHTS: Final = {"allocate": 16, "punch": 30, "write": 20, "reserve": 6, "create": 5, "demote": 4, "renew": 5}


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations, after the files are there."""
    for file, size in enumerate(SIZES):
        yield Step("create", file, 0, size)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    for number in range(count):
        op = random.choices(names, weights)[0]
        file = random.choice((0, 0, 1, 2))
        size, unit = SIZES[file], UNITS[file]
        inside = random.randrange(size // HUGE) * HUGE
        if op == "create":
            yield Step(op, file, 0, size)
        elif op == "demote":
            yield Step(op, 0, 0, 0, random.choice((1, 1, 2, 5)))
        elif op == "renew":
            yield Step(op)
        elif op == "write":
            yield Step(op, file, inside, random.randint(1, 3) * PAGE, number % 255 + 1)
        elif op == "punch" and random.randrange(2):
            yield Step(op, file, inside, HUGE)
        else:
            first = random.randrange(size // unit) * unit + random.choice((0, 0, 0, PAGE, HUGE))
            length = random.choice((unit, unit, HUGE, PAGE, 2 * unit, unit - PAGE))
            yield Step(op, file, first, length if op == "punch" else min(length, size - first))


class LivePools(LiveFiles):
    """Files of both page sizes, and the two pools.

    Args:
        settings: in which the pools are changed.
        used: pages of the pool of 2 MiB that others use.
    """

    def __init__(self, settings: Settings, used: int) -> None:
        super().__init__("hugetlb", pool_counters)
        self.settings = settings
        self.used = used

    def open(self, step: Step) -> LiveMemory:
        """A file of the page size that its number stands for."""
        return self.host.hugetlb(step.size, UNITS[step.file])

    def seen(self, memory: LiveMemory) -> FileSeen:
        """The first byte of each 2 MiB; holes read zero and stay holes."""
        return FileSeen(tags=b"".join(os.pread(memory.fd, 1, place) for place in range(0, memory.size, HUGE)))

    def _apply(self, step: Step) -> int:
        if step.op == "demote":
            DEMOTE.write_text(f"{step.arg}\n")
            return 0
        if step.op == "renew":
            for number in list(self.files):
                self.files.pop(number).close()
            fill(self.settings, self.used)
            return 0
        return super()._apply(step)


def fill(settings: Settings, used: int) -> None:
    """Have so many idle pages of 1 GiB, and none of 2 MiB but those that others use.

    Raises:
        UnsupportedError: they cannot be had.
    """
    settings.set(SETTINGS["2m"], used)
    if int(settings.set(SETTINGS["1g"], PAGES)) < PAGES:
        raise UnsupportedError("hugetlb pool of 1G pages", f"{PAGES} pages cannot be had: no free, aligned runs")


def pool_counters() -> dict[str, int]:
    """Both pools: all pages, free ones, reserved ones."""
    counters: dict[str, int] = {}
    for name, size in POOLS.items():
        pool = read_pool(size).whole
        counters |= {f"total_{name}": pool.total, f"free_{name}": pool.free, f"reserved_{name}": pool.reserved}
    return counters


def live(settings: Settings) -> tuple[LivePools, dict[str, Any]]:
    """Two idle pages of 1 GiB, none of 2 MiB beside those that others use, and no files yet."""
    used = 0
    for size in POOLS.values():
        pool = read_pool(size).whole
        used = pool.total - pool.free
        if pool.reserved or (used and size == GIGA):
            raise UnsupportedError(f"hugetlb pool of {size >> 20}M pages", "others use it")
    if not DEMOTE.exists():
        raise UnsupportedError(str(DEMOTE), "this kernel lacks it (5.16)")
    fill(settings, used)
    return LivePools(settings, used), {"pages": PAGES, "used": used}
