"""Compaction's scanner for targets: free chunks that are isolated in blocks high up in the zone (mm/compaction.c, 6.18).

What is isolated is on no free list. A run for an order searches the free lists first, from their ends, for a chunk in the upper
quarter of what lies between the scanners (`fast_isolate_freepages`); only where that finds nothing it scans block by block.
The search has two consequences that decide how far compaction gets. Each time that it sees a chunk at or above the place where
the next run will start, that place moves below the chunk's block. And an asynchronous scan looks at every 32nd frame only: a
block whose free frames it misses gets the hint to be skipped.
"""

from gmemlab.core import layout
from gmemlab.core.daemons.skip_hints import ASYNC, isolation_suitable, update_pageblock_skip
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_FREE,
    FRAME_ISOLATED,
    FRAME_PCP,
    FRAME_TAIL,
    MOVABLE,
    NR_MIGRATETYPES,
    NR_ORDERS,
    SPLIT,
)
from gmemlab.core.lists import count_free, list_index, pfn_of, push_frame, remove_frame, start_list_at
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State

CLUSTER = 32  # COMPACT_CLUSTER_MAX
NOWHERE = 1 << 62  # what an unsigned difference makes of a target scanner that stands below the other


# -- chunks that are isolated -----------------------------------------------------------------------------------------------


@jit
def isolated_list(state: State, order: int) -> int:
    """Row of the list of isolated chunks of one order, behind the free lists."""
    return int(state.host[0].nr_zones) * NR_MIGRATETYPES * NR_ORDERS + order


@jit
def put_isolated(state: State, slot: int, order: int, to_tail: bool) -> None:
    """Keep an isolated chunk; buddies do not merge with it."""
    push_frame(state, isolated_list(state, order), slot, order, to_tail)
    state.frames[slot].kind = FRAME_ISOLATED


@jit
def isolate_chunk(state: State, zone: int, slot: int) -> int:
    """Take a free chunk of a split block off its free list (`__isolate_free_page`). Returns its pages; 0 if it may not."""
    record = state.blocks[pfn_of(state, slot) >> BLOCK_ORDER]
    order = int(state.frames[slot].order)
    pages = 1 << order
    if state.zones[zone].free - state.zones[zone].free_highatomic - 2 * pages < state.zones[zone].reserve:
        return 0
    remove_frame(state, list_index(zone, int(record.migratetype), order), slot)
    record.nr_free -= pages
    count_free(state, zone, int(record.migratetype), -pages)
    put_isolated(state, slot, order, True)
    state.control[0].nr_free += pages
    return pages


@jit
def take_isolated(state: State, order: int) -> int:
    """A frame slot of 2**order isolated frames, cut from the smallest chunk that has them; 0 if none."""
    for larger in range(order, BLOCK_ORDER):
        row = isolated_list(state, larger)
        slot = int(state.free_lists[row].head)
        if slot:
            remove_frame(state, row, slot)
            for half in range(larger - 1, order - 1, -1):
                put_isolated(state, slot + (1 << half), half, False)
            state.control[0].nr_free -= 1 << order
            return slot
    return 0


@jit
def release_isolated(state: State, zone: int) -> None:
    """Free what was isolated and not used, from where the next run looks again (`release_free_list`)."""
    record = state.zones[zone]
    for order in range(BLOCK_ORDER):
        row = isolated_list(state, order)
        while state.free_lists[row].head:
            slot = int(state.free_lists[row].head)
            pfn = pfn_of(state, slot)
            remove_frame(state, row, slot)
            free_pages(state, pfn, order)
            record.compact_free = max(int(record.compact_free), pfn & ~(BLOCK_PAGES - 1))
    state.control[0].nr_free = 0


# -- the scan ---------------------------------------------------------------------------------------------------------------


@jit
def is_suitable_target(state: State, block: int) -> bool:
    """Whether targets may lie in a block: it is movable or CMA, and does not start with a chunk as large as what is wanted."""
    record = state.blocks[block]
    if record.kind == layout.HOLE or (record.migratetype != MOVABLE and record.migratetype != CMA):
        return False
    if record.kind != SPLIT:
        return bool(record.kind != layout.FREE or record.order < BLOCK_ORDER)
    order = int(state.control[0].order)
    first = state.frames[int(record.detail) * BLOCK_PAGES]
    return bool(first.kind != FRAME_FREE or first.order < (order if order > 0 else BLOCK_ORDER))


@jit
def is_folio(kind: int) -> bool:
    """Whether a frame is in use as part of a folio, which is passed over as a whole; frames set aside are not."""
    return kind != FRAME_TAIL and kind != FRAME_PCP and kind != FRAME_ISOLATED


@jit
def has_chunks(state: State, zone: int, order: int) -> bool:
    """Whether a chunk of exactly this order is free, of whatever type."""
    for migratetype in range(NR_MIGRATETYPES):
        if state.free_lists[list_index(zone, migratetype, order)].head:
            return True
    return False


@jit
def isolate_block(state: State, zone: int, start: int, stride: int) -> int:
    """Isolate chunks of a block from frame `start` on, until there are enough (`isolate_freepages_block`).

    Returns where it ends.
    """
    control = state.control[0]
    block = start >> BLOCK_ORDER
    offset = start & (BLOCK_PAGES - 1)
    record = state.blocks[block]
    if record.kind != SPLIT or record.nr_free == 0:
        state.tally[layout.TALLY_COMPACT_FREE_SCANNED] += BLOCK_PAGES - offset
        return (block + 1) << BLOCK_ORDER
    base = int(record.detail) * BLOCK_PAGES
    before = offset
    while offset < BLOCK_PAGES:
        frame = state.frames[base + offset]
        if frame.kind == FRAME_FREE:
            pages = isolate_chunk(state, zone, base + offset)
            if pages == 0:
                break
            offset += pages - 1
            if control.nr_migrate <= control.nr_free:
                offset += 1
                break
        elif is_folio(int(frame.kind)) and offset & ((1 << int(frame.order)) - 1) == 0:
            offset += (1 << int(frame.order)) - 1
        offset += stride
    offset = min(offset, BLOCK_PAGES)
    state.tally[layout.TALLY_COMPACT_FREE_SCANNED] += offset - before
    return (block << BLOCK_ORDER) + offset


@jit
def isolate_around(state: State, zone: int, block: int) -> None:
    """Isolate more of the block where a search found something, but not where an asynchronous run waits."""
    control = state.control[0]
    if control.nr_free >= control.nr_migrate or (control.direct and control.mode == ASYNC):
        return
    if isolate_block(state, zone, block << BLOCK_ORDER, 1) == (block + 1) << BLOCK_ORDER:
        state.skip[block] = 1


@jit
def next_search_order(state: State, order: int) -> int:
    """The list that is searched next, round from `search_order`; -1 after the last."""
    control = state.control[0]
    order = order - 1 if order > 0 else int(control.order) - 1
    if order == control.search_order:
        control.search_order = control.search_order - 1 if control.search_order > 0 else int(control.order) - 1
        return -1
    return order


@jit
def search_list(state: State, zone: int, order: int, low: int, least: int, limit: int) -> tuple[int, int, int, int]:
    """Look through a list from its end for a chunk at or above `low`, or for the highest above `least`.

    Returns its slot or 0, the highest block that was seen, how many chunks were looked at, and what is left of the limit.
    The list then starts with the last that was looked at, or with the one found.
    """
    row = list_index(zone, MOVABLE, order)
    slot = int(state.free_lists[row].tail)
    highest = 0
    scanned = 0
    found = 0
    candidate = 0
    top = 0
    while slot:
        scanned += 1
        pfn = pfn_of(state, slot)
        highest = max(highest, pfn >> BLOCK_ORDER)
        if pfn >= low:
            state.control[0].fast_search_fail = 0
            state.control[0].search_order = order
            found = slot
            break
        if pfn >= least and pfn > top:
            top = pfn
            candidate = slot
            limit >>= 1
        if scanned >= limit:
            break
        slot = int(state.frames[slot].prev)
    if found == 0 and candidate:
        found = candidate
        slot = candidate
    if slot:
        start_list_at(state, row, slot)
    return found, highest, scanned, limit


@part
def fast_isolate(state: State, zone: int) -> None:
    """Isolate a chunk that a search of the free lists finds, and what lies around it (`fast_isolate_freepages`)."""
    control = state.control[0]
    record = state.zones[zone]
    limit = max(1, ((CLUSTER >> min(int(control.fast_search_fail), CLUSTER)) + 1) >> 1)
    from_start = bool(control.free >= record.compact_init_free)
    if from_start:
        limit = BLOCK_PAGES >> 1
    distance = int(control.free - control.migrate)
    low = (int(control.free) - (distance >> 2)) & ~(BLOCK_PAGES - 1) if distance >= 0 else NOWHERE
    least = (int(control.free) - (distance >> 1)) & ~(BLOCK_PAGES - 1) if distance >= 0 else NOWHERE
    control.search_order = min(int(control.order) - 1, int(control.search_order))
    order = int(control.search_order)
    highest = 0
    place = 0  # a frame to look around
    while place == 0 and order >= 0:
        if not has_chunks(state, zone, order):
            order = next_search_order(state, order)
            continue
        slot, seen, scanned, limit = search_list(state, zone, order, low, least, limit)
        highest = max(highest, seen)
        state.tally[layout.TALLY_COMPACT_FREE_SCANNED] += scanned
        if slot:
            if isolate_chunk(state, zone, slot):
                place = pfn_of(state, slot)
            else:
                order = int(control.search_order) + 1  # ends it
        if control.nr_free >= control.nr_migrate:
            break
        if scanned >= limit:
            limit = max(1, limit >> 1)
        order = next_search_order(state, order)
    if place == 0:
        place = start_elsewhere(state, zone, highest << BLOCK_ORDER, least, from_start)
    if highest and highest << BLOCK_ORDER >= record.compact_free:
        record.compact_free = (highest - 1) << BLOCK_ORDER
    if place:
        isolate_around(state, zone, place >> BLOCK_ORDER)


@jit
def start_elsewhere(state: State, zone: int, highest: int, least: int, from_start: bool) -> int:
    """A search found nothing. At the start of a scan, go on from the highest block that it saw, or from the middle.

    Returns a frame to look around, or 0.
    """
    control = state.control[0]
    control.fast_search_fail += 1
    if not from_start:
        return 0
    if highest >= least:
        control.free = highest
        return highest
    if control.direct == 0 or least == NOWHERE:
        return 0
    control.free = least
    return least if is_suitable_target(state, least >> BLOCK_ORDER) else 0


@part
def isolate_free(state: State, zone: int) -> None:
    """Isolate targets for what is to be moved: by a search, or from the scanner's block downwards (`isolate_freepages`)."""
    control = state.control[0]
    if control.order > 0:
        fast_isolate(state, zone)
    if control.nr_free:
        return
    start = int(control.free)
    block = start >> BLOCK_ORDER
    stride = CLUSTER if control.mode == ASYNC else 1
    while block > control.migrate >> BLOCK_ORDER:
        if isolation_suitable(state, block) and is_suitable_target(state, block):  # Linux the other way round, at more cost
            had = int(control.nr_free)
            start = isolate_block(state, zone, start, stride)
            at_end = start == (block + 1) << BLOCK_ORDER
            if at_end:
                update_pageblock_skip(state, zone, block)
            if control.nr_free >= control.nr_migrate:
                control.free = (block - 1) << BLOCK_ORDER if at_end else start
                return
            if not at_end:
                control.free = start
                return
            stride = 1 if control.nr_free > had else min(CLUSTER, stride << 1)
        block -= 1
        start = block << BLOCK_ORDER
    control.free = start


@jit
def find_target(state: State, zone: int, order: int) -> int:
    """A slot of 2**order isolated frames (`compaction_alloc`); where there are none, more are isolated first. 0 if in vain."""
    target = take_isolated(state, order)
    if target == 0:
        isolate_free(state, zone)
        target = take_isolated(state, order)
    if target:
        state.control[0].nr_migrate -= 1 << order
    return target
