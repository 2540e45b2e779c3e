"""The suite `anon`: anonymous memory in 2 MiB folios, whose parts are freed only with the whole, or when it is split (L16).

The shrinker that splits them also splits those that are mostly zeros (L17).
"""

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
from gmemlab.kernel.suites.live_files import LiveFiles, SplitCounters, tags_of
from gmemlab.kernel.suites.steps import PAGE, FileSeen, Step, runs_of
from gmemlab.kernel.suites.thp import SIZES, HugePlan

THP: Final = "sys/kernel/mm/transparent_hugepage"
SETTING: Final = f"{THP}/enabled"
UNDERUSED: Final = f"{THP}/shrink_underused"
ZEROS: Final = f"{THP}/khugepaged/max_ptes_none"
ZEROS_LET_PASS: Final = (0, 100, 400, 511)  # the last: all
COUNTED: Final = ("split", "underused")
WEIGHTS: Final = {
    "allocate": 16, "punch": 34, "write": 16, "collapse": 6, "free": 6, "shrink": 2, "pin": 6, "unpin": 6, "close": 1,
}  # fmt: skip
_DROP_CACHES: Final = Path("/proc/sys/vm/drop_caches")


class AnonymousPlan(HugePlan):
    """Adds what the shrinker lets pass."""

    def step(self, op: str, file: int) -> Step:
        """One operation on a file."""
        if op == "shrink":
            return Step(op, file, 0, 0, self.random.choice(ZEROS_LET_PASS))
        return super().step(op, file)


def plan(random: Random, count: int) -> Iterator[Step]:
    """So many random operations."""
    return AnonymousPlan(random, SIZES, WEIGHTS, past_end=False).steps(count)


class LiveAnonymous(LiveFiles):
    """Anonymous mappings. How often a pinned folio could not be split is not compared: the shrinker tries several times."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("anonymous", SplitCounters())
        self.settings = settings
        self.actions |= {
            "free": lambda file, step: cast(AnonymousMemory, file).free(step.offset, step.size),
            "shrink": self.shrink,
        }

    def seen(self, memory: LiveMemory) -> FileSeen:
        """Pages that show the kernel's page of zeros are not there: they have no frame of their own."""
        found = cast(AnonymousMemory, memory).own_folios()
        present = [False] * (memory.size // PAGE)
        for folio in found:
            first = folio.offset // PAGE
            present[first : first + folio.pages] = [True] * folio.pages
        runs = runs_of(present)
        rows = tuple((folio.offset // PAGE, folio.size // PAGE, folio.first, folio.pages) for folio in found)
        return FileSeen(present=runs, tags=tags_of(memory, runs), folios=rows)

    def shrink(self, file: LiveMemory, step: Step) -> None:
        """Have all shrinkers run, the one of deferred splits among them."""
        self.settings.set(ZEROS, step.arg)
        _DROP_CACHES.write_text("2")

    def look(self, files: Sequence[int] | None) -> tuple[Mapping[int, FileSeen], Mapping[str, int]]:
        """Without the splits that failed."""
        seen, counters = super().look(files)
        return seen, {name: counters[name] for name in COUNTED}


def live(settings: Settings) -> tuple[LiveAnonymous, dict[str, Any]]:
    """Anonymous mappings, huge where a 2 MiB lies within them."""
    if not difference("reclaims_page_tables", read_release()):
        raise UnsupportedError("page tables that MADV_DONTNEED reclaims", "the model's anonymous memory is that of 6.14 on")
    settings.set(SETTING, "madvise")  # so that other processes split less
    settings.set(UNDERUSED, 1)
    settings.set(ZEROS, 0)
    _DROP_CACHES.write_text("2")  # what others have of huge pages of zeros is split now, and not counted later
    return LiveAnonymous(settings), {}
