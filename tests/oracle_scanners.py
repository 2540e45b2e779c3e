"""The oracle's scanners of compaction: where they start, which blocks they skip, and what clears that."""

from dataclasses import dataclass, field

from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, ISOLATE, MOVABLE
from oracle_memory import Memory


@dataclass
class Scanners:
    """Where a zone's scanners start (frames), which blocks they skip, and what is remembered of failures."""

    migrate: dict[bool, int] = field(default_factory=lambda: {False: 0, True: 0})  # by whether the run is synchronous
    free: int = 0
    init_free: int = 0
    flush: bool = False
    skip: set[int] = field(default_factory=set)
    considered: int = 0
    shift: int = 0
    failed: int = 0

    def seen(self) -> tuple[int, ...]:
        """What can be compared."""
        failures = self.considered, self.shift, self.failed
        return self.migrate[False], self.migrate[True], self.free, self.init_free, *failures, int(self.flush)

    def passes_over(self, order: int) -> bool:
        """Whether an attempt is not made, as one for this order failed lately; it is counted."""
        if order < self.failed:
            return False
        self.considered = min(self.considered + 1, 1 << self.shift)
        return self.considered < 1 << self.shift

    def note_failure(self, order: int) -> None:
        """Twice as many attempts are passed over, up to 64."""
        self.considered, self.shift, self.failed = 0, min(self.shift + 1, 6), min(self.failed, order)


def scanners_of(memory: Memory, zone: int) -> Scanners:
    found = memory.scanners.setdefault(zone, Scanners())
    assert isinstance(found, Scanners)
    return found


def is_huge(memory: Memory, block: int) -> bool:
    """Whether a block is (part of) a huge page, in use, in a pool or an orphan."""
    pfn = block * BLOCK_PAGES
    folio = memory.users.get(pfn)
    pooled = any(huge <= pfn < huge + (1 << pool.order) for pool in memory.pools.values() for huge in pool.idle)
    return pooled or (folio is not None and folio.order >= BLOCK_ORDER)


def clear_hints(memory: Memory, zone: int) -> None:
    """From both ends, after the scanners of a direct compaction met: hints go where a sample of frames is of use."""
    scanners = scanners_of(memory, zone)
    if not scanners.flush:
        return
    scanners.flush = False
    limits = memory.buddy.zones[zone]
    low, high = limits.start, limits.end - 1
    sources: list[int] = []
    targets: list[int] = []
    while low <= high:
        if clears_hint(memory, scanners, low, True, bool(sources)):
            sources.append(low)
            scanners.migrate = dict.fromkeys((False, True), sources[0] * BLOCK_PAGES)
        if clears_hint(memory, scanners, high, bool(targets), True):
            targets.append(high)
            scanners.free = scanners.init_free = targets[0] * BLOCK_PAGES + BLOCK_PAGES - 1
        low, high = low + 1, high - 1
    first = sources[0] if sources else limits.end - 1
    if (first * BLOCK_PAGES if sources else first * BLOCK_PAGES + 511) >= (
        targets[0] * BLOCK_PAGES + 511 if targets else limits.start * BLOCK_PAGES
    ):
        scanners.migrate = dict.fromkeys((False, True), low * BLOCK_PAGES)
        scanners.free = high * BLOCK_PAGES + 511


def clears_hint(memory: Memory, scanners: Scanners, block: int, as_source: bool, as_target: bool) -> bool:
    if is_huge(memory, block):
        return False
    if as_source and as_target and block not in scanners.skip:
        return True
    if not as_source and memory.buddy.blocktype[block] != MOVABLE:
        return False
    for pfn in range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES, 8):
        if (as_source and memory.on_lru(pfn)) or (as_target and pfn in memory.buddy.chunks):
            scanners.skip.discard(block)
            return True
    return False


def score_of_zone(memory: Memory, zone: int) -> int:
    """Percent of its free pages that lie outside chunks of 2 MiB and more."""
    small = sum(
        len(pfns) << order for by_order in memory.buddy.lists[zone] for order, pfns in enumerate(by_order[:BLOCK_ORDER])
    )
    free = memory.buddy.zone_free(zone) + memory.buddy.free_of(zone, ISOLATE)
    return small * 100 // free if free else 0
