"""The suite `anon`: anonymous memory in 2 MiB folios, whose parts are freed only with the whole, or when it is split (L16)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from gmemlab.errors import UnsupportedError
from gmemlab.kernel.anonymous import AnonymousMemory
from gmemlab.kernel.differences import difference
from gmemlab.kernel.features import read_release
from gmemlab.kernel.memory import LiveMemory
from gmemlab.kernel.settings import Settings
from gmemlab.kernel.suites.live_files import LiveFiles, SplitCounters
from gmemlab.kernel.suites.steps import FileSeen, Step
from gmemlab.kernel.suites.thp import SIZES, HugePlan

SETTING: Final = "sys/kernel/mm/transparent_hugepage/enabled"
WEIGHTS: Final = {
    "allocate": 16, "punch": 34, "write": 16, "collapse": 6, "free": 6, "shrink": 2, "pin": 6, "unpin": 6, "close": 1,
}  # fmt: skip
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return HugePlan(random, SIZES, WEIGHTS, past_end=False).steps(count)


class LiveAnonymous(LiveFiles):
    """Anonymous mappings. How often a pinned folio could not be split is not compared: the shrinker tries several times."""

    def __init__(self) -> None:
        super().__init__("anonymous", SplitCounters())
        self.actions |= {
            "free": lambda file, step: cast(AnonymousMemory, file).free(step.offset, step.size),
            "shrink": shrink,
        }

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """Without the splits that failed."""
        seen, counters = super().look(files)
        return seen, {"split": counters["split"]}


def shrink(file: LiveMemory, step: Step) -> None:
    """Have all shrinkers run, the one of deferred splits among them."""
    _DROP_CACHES.write_text("2")


def live(settings: Settings) -> tuple[LiveAnonymous, dict[str, Any]]:
    """Anonymous mappings, huge where a 2 MiB lies within them."""
    if not difference("reclaims_page_tables", read_release()):
        raise UnsupportedError("page tables that MADV_DONTNEED reclaims", "the model's anonymous memory is that of 6.14 on")
    settings.set(SETTING, "madvise")  # so that other processes split less
    return LiveAnonymous(), {}
