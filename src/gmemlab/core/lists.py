"""Free lists of the buddy allocator and the slabs of frame details.

A chunk below order 9 is linked through the frame details of its split block, a larger one through its block record. Which
of the two a list uses follows from its order alone.
"""

from gmemlab.core import layout
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_FREE,
    HIGHATOMIC,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCPTYPES,
)
from gmemlab.core.state import State


@jit
def list_index(zone: int, migratetype: int, order: int) -> int:
    """Row of a free list in `state.free_lists`."""
    return (zone * NR_MIGRATETYPES + migratetype) * NR_ORDERS + order


@jit
def account_special(state: State, zone: int, migratetype: int, pages: int) -> None:
    """Count free pages of a type that is not everybody's: HIGHATOMIC, CMA, ISOLATE (`account_freepages`)."""
    record = state.zones[zone]
    if migratetype == CMA:
        record.free_cma += pages
        record.held_fixed += pages
    elif migratetype == HIGHATOMIC:
        record.free_highatomic += pages
        record.held += pages
        record.held_fixed += pages
    else:
        record.free_isolated += pages
        record.free -= pages


@inline
def count_free(state: State, zone: int, migratetype: int, pages: int) -> None:
    """Count pages that became free, or (below 0) are so no more."""
    state.zones[zone].free += pages
    if migratetype >= NR_PCPTYPES:
        account_special(state, zone, migratetype, pages)


@jit
def slot_of(state: State, pfn: int) -> int:
    """Frame slot of a frame whose block is split."""
    return int(state.blocks[pfn >> BLOCK_ORDER].detail) * BLOCK_PAGES + (pfn & (BLOCK_PAGES - 1))


@jit
def pfn_of(state: State, slot: int) -> int:
    """Frame number of a frame slot."""
    return int(state.frame_slabs[slot >> BLOCK_ORDER].block) * BLOCK_PAGES + (slot & (BLOCK_PAGES - 1))


@jit
def take_frame_slab(state: State, block: int) -> int:
    """A zeroed slab of frame details for `block`; 0 and `host.exhausted` when the table is full."""
    host = state.host[0]
    slab = int(host.free_frame_slab)
    if slab:
        host.free_frame_slab = state.frame_slabs[slab].next
    else:
        slab = int(host.next_frame_slab)
        if slab >= host.max_frame_slabs:
            host.exhausted = 1
            return 0
        host.next_frame_slab = slab + 1
    state.frame_slabs[slab].block = block
    state.blocks[block].detail = slab
    return slab


@jit
def drop_frame_slab(state: State, block: int) -> None:
    """Give the block's frame details back. All rows must be zero again, so that a new slab needs no work."""
    record = state.blocks[block]
    slab = int(record.detail)
    record.detail = 0
    host = state.host[0]
    state.frame_slabs[slab].block = 0
    state.frame_slabs[slab].next = host.free_frame_slab
    host.free_frame_slab = slab


@jit
def push_frame(state: State, row: int, slot: int, order: int, to_tail: bool) -> None:
    """Mark a chunk below order 9 free and link it."""
    free_list = state.free_lists[row]
    frame = state.frames[slot]
    frame.kind = FRAME_FREE
    frame.order = order
    if to_tail:
        last = int(free_list.tail)
        frame.next = 0
        frame.prev = last
        if last:
            state.frames[last].next = slot
        else:
            free_list.head = slot
        free_list.tail = slot
    else:
        first = int(free_list.head)
        frame.prev = 0
        frame.next = first
        if first:
            state.frames[first].prev = slot
        else:
            free_list.tail = slot
        free_list.head = slot
    free_list.count += 1


@jit
def remove_frame(state: State, row: int, slot: int) -> None:
    """Unlink a chunk below order 9; its frame becomes a tail of whatever takes it."""
    free_list = state.free_lists[row]
    frame = state.frames[slot]
    after = int(frame.next)
    before = int(frame.prev)
    if before:
        state.frames[before].next = after
    else:
        free_list.head = after
    if after:
        state.frames[after].prev = before
    else:
        free_list.tail = before
    free_list.count -= 1
    frame.index = 0
    frame.kind = 0
    frame.order = 0


@jit
def start_list_at(state: State, row: int, slot: int) -> None:
    """Move the chunks before one to the end of their list, so that it comes first (`move_freelist_head`)."""
    free_list = state.free_lists[row]
    frame = state.frames[slot]
    before = int(frame.prev)
    if before == 0:
        return
    first, last = int(free_list.head), int(free_list.tail)
    state.frames[last].next = first
    state.frames[first].prev = last
    state.frames[before].next = 0
    frame.prev = 0
    free_list.head = slot
    free_list.tail = before


@jit
def end_list_at(state: State, row: int, slot: int) -> None:
    """Move the chunks behind one to the start of their list, so that it comes last (`move_freelist_tail`)."""
    after = int(state.frames[slot].next)
    if after:
        start_list_at(state, row, after)


@jit
def push_block(state: State, row: int, block: int, order: int, to_tail: bool) -> None:
    """Mark a chunk of order 9 or 10 free and link it by its first block."""
    free_list = state.free_lists[row]
    record = state.blocks[block]
    record.kind = layout.FREE
    record.order = order
    record.owner = 0
    record.index = 0
    record.busy = 0
    record.deferred = 0
    if order > BLOCK_ORDER:
        second = state.blocks[block + 1]
        second.kind = layout.FREE
        second.order = -1
        second.next = 0
        second.prev = 0
    if to_tail:
        last = int(free_list.tail)
        record.next = 0
        record.prev = last
        if last:
            state.blocks[last].next = block
        else:
            free_list.head = block
        free_list.tail = block
    else:
        first = int(free_list.head)
        record.prev = 0
        record.next = first
        if first:
            state.blocks[first].prev = block
        else:
            free_list.tail = block
        free_list.head = block
    free_list.count += 1


@jit
def remove_block(state: State, row: int, block: int) -> None:
    """Unlink a chunk of order 9 or 10; the caller says what its blocks become."""
    free_list = state.free_lists[row]
    record = state.blocks[block]
    after = int(record.next)
    before = int(record.prev)
    if before:
        state.blocks[before].next = after
    else:
        free_list.head = after
    if after:
        state.blocks[after].prev = before
    else:
        free_list.tail = before
    free_list.count -= 1
    record.next = 0
    record.prev = 0
