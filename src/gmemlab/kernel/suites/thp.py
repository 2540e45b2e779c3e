"""The suite `thp`: shmem files with 2 MiB folios: allocation, splits by partial punches, pins (L12 to L14)."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final

from gmemlab.kernel.differences import difference
from gmemlab.kernel.features import read_release
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles, SplitCounters
from gmemlab.kernel.suites.plans import BLOCK, Plan
from gmemlab.kernel.suites.steps import PAGE, Step

SETTING: Final = "sys/kernel/mm/transparent_hugepage/shmem_enabled"
SIZES: Final = (1, 512, 700, 1024, 1300, 2048)  # pages; the last 2 MiB of some lie partly beyond the end (L12)
WEIGHTS: Final = {"allocate": 16, "punch": 40, "write": 14, "collapse": 6, "pin": 10, "unpin": 10, "close": 1}


class HugePlan(Plan):
    """Adds collapse: of one aligned 2 MiB, where the file has one."""

    def step(self, op: str, file: int) -> Step:
        """One operation on a file."""
        if op == "collapse" and self.files[file] >= BLOCK:
            return Step(op, file, self.random.randrange(self.files[file] // BLOCK) * BLOCK * PAGE, BLOCK * PAGE)
        return super().step("punch" if op == "collapse" else op, file)


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return HugePlan(random, SIZES, WEIGHTS, past_end=False).steps(count)


def live(settings: Settings) -> tuple[LiveFiles, dict[str, Any]]:
    """Files of shmem, whose folios are huge where they lie within the file."""
    settings.set(SETTING, "within_size")
    facts = {name: difference(name, read_release()) for name in ("split", "shmem_ladder")}
    return LiveFiles("shmem", SplitCounters()), facts
