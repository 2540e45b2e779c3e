"""The buddy allocator: allocation, fallback between migratetypes, free and merge (mm/page_alloc.c, 6.18).

Only free lists and the free side of block records change here; who owns an allocated frame is `frames.py`'s business.
A frame number of 0 means that nothing could be had.
"""

from gmemlab.core import layout
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_FREE,
    MAX_PAGE_ORDER,
    MOVABLE,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCPTYPES,
    RECLAIMABLE,
    UNMOVABLE,
)
from gmemlab.core.lists import (
    account_special,
    count_free,
    drop_frame_slab,
    list_index,
    pfn_of,
    push_block,
    push_frame,
    remove_block,
    remove_frame,
    slot_of,
    take_frame_slab,
)
from gmemlab.core.lru import pages_alike
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def cut(state: State, pfn: int, zone: int, migratetype: int, high: int, low: int) -> int:
    """Cut an unlinked chunk of order `high` down to `low`; the upper halves go to the heads of their lists (`expand`).

    Returns the chunk's first frame. The blocks that it came from are left marked as in use (the caller sets by whom).
    """
    block = pfn >> BLOCK_ORDER
    if high > BLOCK_ORDER and low <= BLOCK_ORDER:
        push_block(state, list_index(zone, migratetype, BLOCK_ORDER), block + 1, BLOCK_ORDER, False)
        state.blocks[block].order = BLOCK_ORDER
        high = BLOCK_ORDER
    if high == BLOCK_ORDER and low < BLOCK_ORDER:
        record = state.blocks[block]
        record.kind = layout.SPLIT
        record.order = 0
        record.nr_free = BLOCK_PAGES
        record.nr_movable = 0
        take_frame_slab(state, block)
    if low < BLOCK_ORDER:
        cut_within(state, slot_of(state, pfn), list_index(zone, migratetype, 0), high, low)
    return pfn


@inline
def cut_within(state: State, slot: int, row: int, high: int, low: int) -> None:
    """`cut` of a chunk within a block, which begins at a frame slot, for the lists from `row` on."""
    while high > low:
        high -= 1
        push_frame(state, row + high, slot + (1 << high), high, False)


@inline
def take_head(state: State, zone: int, migratetype: int, current: int, order: int) -> int:
    """Take the first chunk of a list that is not empty and cut it down to `order`."""
    row = list_index(zone, migratetype, current)
    node = int(state.free_lists[row].head)
    if current < BLOCK_ORDER:
        remove_frame(state, row, node)
        cut_within(state, node, row - current, current, order)
        return pfn_of(state, node)
    remove_block(state, row, node)
    return cut(state, node << BLOCK_ORDER, zone, migratetype, current, order)


@inline
def take_smallest(state: State, zone: int, migratetype: int, order: int) -> int:
    """The head of the smallest sufficient list of one migratetype (`__rmqueue_smallest`)."""
    row = list_index(zone, migratetype, 0)
    for current in range(order, NR_ORDERS):
        if state.free_lists[row + current].head:
            return take_head(state, zone, migratetype, current, order)
    return 0


@jit
def fallback_type(migratetype: int, choice: int) -> int:
    """First and second choice of another migratetype to take from (`fallbacks[]`)."""
    if migratetype == UNMOVABLE:
        return RECLAIMABLE if choice == 0 else MOVABLE
    if migratetype == MOVABLE:
        return RECLAIMABLE if choice == 0 else UNMOVABLE
    return UNMOVABLE if choice == 0 else MOVABLE


@jit
def find_fallback(state: State, zone: int, migratetype: int, order: int) -> int:
    """The migratetype whose list of exactly this order can help out; -1 where none has any."""
    for choice in range(2):
        other = fallback_type(migratetype, choice)
        if state.free_lists[list_index(zone, other, order)].head:
            return other
    return -1


@jit
def move_free_chunks(state: State, zone: int, block: int, old: int, new: int) -> None:
    """Move all free chunks of a split block to the tails of another type's lists (`__move_freepages_block`)."""
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    pages = int(state.blocks[block].nr_free)
    count_free(state, zone, old, -pages)
    count_free(state, zone, new, pages)
    offset = 0
    while offset < BLOCK_PAGES:
        frame = state.frames[base + offset]
        order = int(frame.order)
        if frame.kind == FRAME_FREE:
            remove_frame(state, list_index(zone, old, order), base + offset)
            push_frame(state, list_index(zone, new, order), base + offset, order, True)
        offset += 1 << order


@jit
def set_boost(state: State, zone: int, pages: int) -> None:
    """Raise a zone's watermarks by so much."""
    record = state.zones[zone]
    more = pages - int(record.boost)
    record.boost = pages
    record.held += more
    record.held_fixed += more


@jit
def boost_watermark(state: State, zone: int) -> None:
    """Raise a zone's watermarks for a while, as another type helped out; kswapd is told by whoever allocates next.

    The kernel has an allocation without __GFP_KSWAPD_RECLAIM not tell it, though the watermarks rise then, too.
    """
    record = state.zones[zone]
    most = int(record.wmark_min + record.high) * int(state.host[0].boost_factor) // 10_000
    if most == 0 or (record.end - record.start) * BLOCK_PAGES < 4 * BLOCK_PAGES:
        return
    set_boost(state, zone, min(int(record.boost) + BLOCK_PAGES, max(BLOCK_PAGES, most)))
    record.boosted = 1
    state.host[0].calls_kswapd = 1


@part
def claim(state: State, zone: int, migratetype: int, order: int, least: int) -> int:
    """Take over page blocks of another type, for their largest chunk first, of order `least` or more (`__rmqueue_claim`)."""
    for current in range(MAX_PAGE_ORDER, max(order, least) - 1, -1):
        if current < BLOCK_ORDER // 2 and migratetype == MOVABLE:
            return 0  # should_try_claim_block(): too small a chunk to spoil a block for
        other = find_fallback(state, zone, migratetype, current)
        if other < 0:
            continue
        row = list_index(zone, other, current)
        node = int(state.free_lists[row].head)
        if current >= BLOCK_ORDER:
            remove_block(state, row, node)
            for block in range(node, node + (1 << (current - BLOCK_ORDER))):
                state.blocks[block].migratetype = migratetype
                state.tally[layout.TALLY_BLOCKS_STOLEN] += 1
            return cut(state, node << BLOCK_ORDER, zone, migratetype, current, order)
        boost_watermark(state, zone)
        block = pfn_of(state, node) >> BLOCK_ORDER
        record = state.blocks[block]
        missing = max(0, BLOCK_PAGES // 2 - int(record.nr_free))
        if pages_alike(state, block, migratetype, missing) >= missing:
            move_free_chunks(state, zone, block, other, migratetype)
            record.migratetype = migratetype
            state.tally[layout.TALLY_BLOCKS_STOLEN] += 1
            return take_smallest(state, zone, migratetype, order)
    return 0


@part
def steal(state: State, zone: int, migratetype: int, order: int) -> int:
    """Take one chunk of another type, the smallest first; its block keeps its type (`__rmqueue_steal`)."""
    for current in range(order, NR_ORDERS):
        other = find_fallback(state, zone, migratetype, current)
        if other >= 0:
            return take_head(state, zone, other, current, order)
    return 0


@jit
def has_chunk_of(state: State, zone: int, order: int, migratetype: int) -> bool:
    """Whether a chunk of this order or more is on the free lists of one type."""
    for larger in range(order, NR_ORDERS):
        if state.free_lists[list_index(zone, migratetype, larger)].head:
            return True
    return False


@jit
def has_chunk(state: State, zone: int, order: int, wanted: int) -> bool:
    """Whether a zone has a chunk of this order or more for a type, which may claim or steal others' (`__zone_watermark_ok`).

    Of CMA movable memory has some, of HIGHATOMIC only those who may.
    """
    for migratetype in range(NR_PCPTYPES):
        if has_chunk_of(state, zone, order, migratetype):
            return True
    return wanted == MOVABLE and has_chunk_of(state, zone, order, CMA)


@inline
def note_taken(state: State, zone: int, pfn: int, order: int) -> None:
    """Count a chunk that was taken off the free lists as used."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    count_free(state, zone, int(record.migratetype), -(1 << order))
    if order < BLOCK_ORDER:
        record.nr_free -= 1 << order
    else:
        record.kind = layout.RESERVED  # until somebody owns it, so that nothing merges with it


@jit
def prefers_cma(state: State, zone: int) -> bool:
    """Whether movable memory comes from CMA blocks first: more than half of what is free in the zone is there (`__rmqueue`)."""
    record = state.zones[zone]
    return bool(record.free_cma > record.free // 2)


@part
def take_movable(state: State, zone: int, order: int) -> int:
    """A chunk for movable memory where some is CMA: of CMA first or last (`__rmqueue_cma_fallback`)."""
    first = CMA if prefers_cma(state, zone) else MOVABLE
    pfn = take_smallest(state, zone, first, order)
    return pfn or take_smallest(state, zone, CMA + MOVABLE - first, order)


@inline
def take_own(state: State, zone: int, migratetype: int, order: int) -> int:
    """A chunk of the own lists, to which CMA belongs for movable memory."""
    if migratetype == MOVABLE and state.zones[zone].free_cma > 0:
        return take_movable(state, zone, order)
    return take_smallest(state, zone, migratetype, order)


@inline
def alloc_from_zone(state: State, zone: int, order: int, migratetype: int, least: int) -> int:
    """`__rmqueue`: own lists, then claim a block, then steal a chunk.

    With `least` above 0 no smaller chunk of another type is touched, and none stolen (ALLOC_NOFRAGMENT).
    """
    pfn = take_own(state, zone, migratetype, order)
    if pfn == 0:
        pfn = claim(state, zone, migratetype, order, least)
        if pfn == 0 and least == 0:
            pfn = steal(state, zone, migratetype, order)
    if pfn:
        note_taken(state, zone, pfn, order)
    return pfn


@jit
def spare(state: State, zone: int, migratetype: int) -> int:
    """Free pages of a zone that are not kept from a type, beyond its reserve and boost (`__zone_watermark_unusable_free`)."""
    record = state.zones[zone]
    held = record.held if migratetype == MOVABLE else record.held_fixed
    return int(record.free - record.reserve - held)


@jit
def may_merge(one: int, other: int) -> bool:
    """Whether free blocks of two types do: where both are everybody's (`migratetype_is_mergeable`), or are the same."""
    return one == other or (one < NR_PCPTYPES and other < NR_PCPTYPES)


@jit
def insert_block(state: State, block: int, to_tail: bool) -> None:
    """Link a block that became free as a whole, merging it with its neighbour to order 10 (K19).

    Neighbours of different types merge where both are everybody's, and the type of the block that was freed last wins.
    """
    record = state.blocks[block]
    zone = int(record.zone)
    migratetype = int(record.migratetype)
    buddy = block ^ 1
    if 0 < buddy <= state.host[0].nr_blocks:
        other = state.blocks[buddy]
        free = other.kind == layout.FREE and other.order == BLOCK_ORDER
        if free and other.zone == zone and may_merge(int(other.migratetype), migratetype):
            remove_block(state, list_index(zone, int(other.migratetype), BLOCK_ORDER), buddy)
            other.migratetype = migratetype
            first = min(block, buddy)
            push_block(state, list_index(zone, migratetype, MAX_PAGE_ORDER), first, MAX_PAGE_ORDER, to_tail)
            return
    push_block(state, list_index(zone, migratetype, BLOCK_ORDER), block, BLOCK_ORDER, to_tail)


@jit
def free_block(state: State, block: int) -> None:
    """Free all 512 frames of a block that has no frame details."""
    record = state.blocks[block]
    count_free(state, int(record.zone), int(record.migratetype), BLOCK_PAGES)
    insert_block(state, block, False)


@jit
def merge_likely(state: State, block: int, base: int, offset: int, order: int) -> bool:
    """Whether the next larger buddy is free already, so that this chunk is worth keeping back (K18).

    `base` is the frame slot of the first frame of its block, `offset` the chunk's place there.
    """
    if order == BLOCK_ORDER - 1:
        buddy = block ^ 1
        if buddy == 0 or buddy > state.host[0].nr_blocks:
            return False
        other = state.blocks[buddy]
        return bool(other.kind == layout.FREE and other.order == BLOCK_ORDER and other.zone == state.blocks[block].zone)
    higher = (offset & ~(1 << order)) ^ (1 << (order + 1))
    frame = state.frames[base + higher]
    return bool(frame.kind == FRAME_FREE and frame.order == order + 1)


@jit
def free_chunk(state: State, pfn: int, order: int) -> None:
    """Free 2**order frames (order below 9) of a split block, merging as far as buddies are free (`__free_one_page`).

    The frames' details must be cleared already.
    """
    block = pfn >> BLOCK_ORDER
    record = state.blocks[block]
    base = int(record.detail) * BLOCK_PAGES
    offset = pfn & (BLOCK_PAGES - 1)
    if record.migratetype >= NR_PCPTYPES:
        account_special(state, int(record.zone), int(record.migratetype), 1 << order)
    row = list_index(int(record.zone), int(record.migratetype), 0)
    record.nr_free += 1 << order
    state.zones[int(record.zone)].free += 1 << order
    while order < BLOCK_ORDER:
        buddy = offset ^ (1 << order)
        frame = state.frames[base + buddy]
        if frame.kind != FRAME_FREE or frame.order != order:
            break
        remove_frame(state, row + order, base + buddy)
        offset &= ~(1 << order)
        order += 1
    if order == BLOCK_ORDER:
        drop_frame_slab(state, block)
        insert_block(state, block, False)
    else:
        push_frame(state, row + order, base + offset, order, merge_likely(state, block, base, offset, order))


@jit
def free_blocks_of(state: State, zone: int, migratetype: int) -> int:
    """Free 2 MiB blocks of a zone and a migratetype."""
    row = list_index(zone, migratetype, BLOCK_ORDER)
    return int(state.free_lists[row].count) + 2 * int(state.free_lists[row + 1].count)


@jit
def free_blocks_of_types(state: State, zone: int) -> int:
    """Free 2 MiB blocks of a zone, of any migratetype."""
    blocks = 0
    for migratetype in range(NR_MIGRATETYPES):
        blocks += free_blocks_of(state, zone, migratetype)
    return blocks
