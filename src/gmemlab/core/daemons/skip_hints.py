"""What compaction remembers of a zone between runs: where its scanners stood, and blocks that are not worth a look (6.18).

A block with the hint (PB_compact_skip) was scanned lately. When the scanners of a direct compaction met, kswapd clears the
hints as soon as it sleeps (`compact_blockskip_flush`). Those of a zone whose compaction was passed over 63 times are cleared,
too.
"""

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_FREE,
    MOVABLE,
    SPLIT,
    UNIFORM,
)
from gmemlab.core.lru import has_lru_pages, is_on_lru
from gmemlab.core.state import State

ASYNC = 0  # MIGRATE_ASYNC: the first try for a large chunk gives up a place where a single page cannot move
SYNC_LIGHT = 1
SYNC = 2  # only /proc/sys/vm/compact_memory
SAMPLE = 8  # a block is cleared where one frame in so many is of use (PAGE_ALLOC_COSTLY_ORDER)


@jit
def isolation_suitable(state: State, block: int) -> bool:
    """Whether a block may be scanned: the hint is not set, or ignored."""
    return bool(state.control[0].ignore_skip_hint or state.skip[block] == 0)


@jit
def reset_cached_positions(state: State, zone: int) -> None:
    """Sources from the start of the zone, targets from its end."""
    record = state.zones[zone]
    record.compact_migrate = int(record.start) << BLOCK_ORDER
    record.compact_migrate_sync = int(record.start) << BLOCK_ORDER
    record.compact_free = (int(record.end) - 1) << BLOCK_ORDER


@jit
def update_cached_migrate(state: State, zone: int, pfn: int) -> None:
    """The next run starts behind the block of `pfn`, which is the first of the next block: one block is passed over."""
    record = state.zones[zone]
    pfn = ((pfn >> BLOCK_ORDER) + 1) << BLOCK_ORDER
    record.compact_migrate = max(int(record.compact_migrate), pfn)
    if state.control[0].mode != ASYNC:
        record.compact_migrate_sync = max(int(record.compact_migrate_sync), pfn)


@jit
def update_pageblock_skip(state: State, zone: int, block: int) -> None:
    """A block was searched for targets to its end: the next run starts below it."""
    record = state.zones[zone]
    state.skip[block] = 1
    record.compact_free = min(int(record.compact_free), (block - 1) << BLOCK_ORDER)


@jit
def skip_persistent(state: State, block: int) -> bool:
    """Whether a block is (part of) a huge page, which is no source (`pageblock_skip_persistent`)."""
    kind = state.blocks[block].kind
    return bool(kind == layout.WHOLE or kind == layout.GIGA or kind == layout.POOL or kind == layout.ORPHAN)


@jit
def is_of_use(state: State, block: int, as_source: bool, as_target: bool) -> bool:
    """Whether a sample of a block's frames finds one on the LRU lists, or one that heads a free chunk."""
    record = state.blocks[block]
    if record.kind == UNIFORM:
        return as_source and has_lru_pages(state, int(record.owner))
    if record.kind != SPLIT:
        return bool(as_target and record.kind == layout.FREE and record.order > 0)
    base = int(record.detail) * BLOCK_PAGES
    for slot in range(base, base + BLOCK_PAGES, SAMPLE):
        if as_source and is_on_lru(state, slot):
            return True
        if as_target and state.frames[slot].kind == FRAME_FREE:
            return True
    return False


@jit
def reset_isolation_pfn(state: State, block: int, as_source: bool, as_target: bool) -> bool:
    """Clear a block's hint where it is of use. Whether a scanner may start there (`__reset_isolation_pfn`)."""
    record = state.blocks[block]
    if record.kind == layout.HOLE or skip_persistent(state, block):
        return False
    if as_source and as_target and state.skip[block] == 0:
        return True
    if (not as_source and record.migratetype != MOVABLE) or not is_of_use(state, block, as_source, as_target):
        return False
    state.skip[block] = 0
    return True


@jit
def reset_isolation_suitable(state: State, zone: int) -> None:
    """Clear the hints of a zone from both ends, where the scanners of a direct compaction met (`__reset_isolation_suitable`).

    They start where that helped first, that for targets in the last frame of its block.
    """
    record = state.zones[zone]
    if record.blockskip_flush == 0:
        return
    record.blockskip_flush = 0
    migrate, free = int(record.start), int(record.end) - 1
    reset_migrate, reset_free = free << BLOCK_ORDER | (BLOCK_PAGES - 1), migrate << BLOCK_ORDER
    source_set = False
    free_set = False
    while migrate <= free:
        if reset_isolation_pfn(state, migrate, True, source_set) and not source_set:
            source_set = True
            reset_migrate = migrate << BLOCK_ORDER
            record.compact_migrate = reset_migrate
            record.compact_migrate_sync = reset_migrate
        if reset_isolation_pfn(state, free, free_set, True) and not free_set:
            free_set = True
            reset_free = free << BLOCK_ORDER | (BLOCK_PAGES - 1)
            record.compact_init_free = reset_free
            record.compact_free = reset_free
        migrate += 1
        free -= 1
    if reset_migrate >= reset_free:  # "Leave no distance if no suitable block was reset"
        record.compact_migrate = migrate << BLOCK_ORDER
        record.compact_migrate_sync = migrate << BLOCK_ORDER
        record.compact_free = free << BLOCK_ORDER | (BLOCK_PAGES - 1)
