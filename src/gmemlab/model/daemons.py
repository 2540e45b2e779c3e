"""khugepaged and kcompactd as users of the model meet them: their settings, and what they did."""

from dataclasses import dataclass, fields
from typing import Final

from gmemlab.core import execute, layout
from gmemlab.core.daemons import khugepaged
from gmemlab.core.daemons.record import DEFAULTS, KCOMPACTD_INTERVAL
from gmemlab.core.state import State
from gmemlab.errors import UsageError

LONGEST_TICK: Final = 366 * 86_400  # seconds
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "pages_to_scan": (1, (1 << 32) - 1),
    "scan_sleep_millisecs": (1, (1 << 32) - 1),
    "alloc_sleep_millisecs": (1, (1 << 32) - 1),
    "max_ptes_none": (0, layout.BLOCK_PAGES - 1),
    "compaction_proactiveness": (0, 100),
}


@dataclass(frozen=True)
class DaemonSettings:
    """What the daemons of a host are told; the defaults are those of Linux 6.18.

    Nothing is swapped out in the model, and no page is mapped by two processes: max_ptes_swap and max_ptes_shared could never
    be exceeded, and are no settings.

    Attributes:
        pages_to_scan: how far khugepaged looks each time that it wakes, in 4K pages.
        scan_sleep_millisecs: how long it sleeps then; Linux also takes 0.
        alloc_sleep_millisecs: how long it sleeps, once in a scan, where it finds no free 2M page.
        max_ptes_none: how many holes of a 2M it fills. And how many pages of zeros the deferred-split shrinker leaves in one,
            where memory is short (L17); at 511 all.
        compaction_proactiveness: of kcompactd, 0 to 100; 0 leaves it to what failed allocations and kswapd ask for.
    """

    pages_to_scan: int = DEFAULTS["pages_to_scan"]
    scan_sleep_millisecs: int = DEFAULTS["scan_sleep"]
    alloc_sleep_millisecs: int = DEFAULTS["alloc_sleep"]
    max_ptes_none: int = DEFAULTS["max_ptes_none"]
    compaction_proactiveness: int = DEFAULTS["proactiveness"]

    def __post_init__(self) -> None:
        """Refuse what the kernel refuses, with what it takes."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            least, most = _BOUNDS[setting.name]
            if not isinstance(value, int) or not least <= value <= most:
                raise UsageError("not a setting of the daemons", key=setting.name, value=value, allowed=f"{least} to {most}")

    def write(self, state: State) -> None:
        """Tell the daemons of a host."""
        record = state.daemons[0]
        record.pages_to_scan = self.pages_to_scan
        record.scan_sleep = self.scan_sleep_millisecs
        record.alloc_sleep = self.alloc_sleep_millisecs
        record.max_ptes_none = self.max_ptes_none
        record.proactiveness = self.compaction_proactiveness


@dataclass(frozen=True)
class DaemonWork:
    """What the daemons did in some time. Counts; pages are of 4K.

    Attributes:
        full_scans: times that khugepaged came to the end of its list of files.
        scanned: 2M ranges that it looked at.
        collapsed: of these, made one folio.
        holes: left, with more holes than max_ptes_none.
        held: left, with pinned or referenced pages.
        no_memory: left, as no 2M page could be had.
        shared: left, with pages of a confidential guest that are shared in place.
        copied: pages that the collapses copied.
        compacted: zones that kcompactd compacted.
        moved: pages that compaction moved.
    """

    full_scans: int
    scanned: int
    collapsed: int
    holes: int
    held: int
    no_memory: int
    shared: int
    copied: int
    compacted: int
    moved: int


def let_pass(state: State, seconds: float) -> DaemonWork:
    """Let time pass for both daemons, in steps no longer than khugepaged sleeps. UsageError for no time from 0 on."""
    if not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_TICK:
        raise UsageError("not a time", key="seconds", value=seconds, allowed=f"0 to {LONGEST_TICK}")
    milliseconds = round(seconds * 1000)
    before = state.tally.copy()
    longest = max(KCOMPACTD_INTERVAL, int(state.daemons[0].scan_sleep))
    while milliseconds > 0 and not state.host[0].exhausted:
        step = min(milliseconds, longest)
        execute.execute(state, layout.OP_KHUGEPAGED, 0, 0, step, 0)
        execute.execute(state, layout.OP_KCOMPACTD, 0, 0, step, 0)
        milliseconds -= step
    done = state.tally - before
    seen = done[layout.TALLY_SCAN : layout.TALLY_SCAN + layout.NR_SCAN_RESULTS]
    return DaemonWork(
        full_scans=int(done[layout.TALLY_FULL_SCANS]),
        scanned=int(seen.sum()),
        collapsed=int(seen[khugepaged.SCAN_SUCCEED]),
        holes=int(seen[khugepaged.SCAN_EXCEED_NONE_PTE]),
        held=int(seen[khugepaged.SCAN_PAGE_COUNT]),
        no_memory=int(seen[khugepaged.SCAN_ALLOC_HUGE_PAGE_FAIL]),
        shared=int(seen[khugepaged.SCAN_SHARED]),
        copied=int(done[layout.TALLY_COLLAPSE_COPIED]),
        compacted=int(done[layout.TALLY_KCOMPACTD_RUNS]),
        moved=int(done[layout.TALLY_COMPACT_MOVED]),
    )
