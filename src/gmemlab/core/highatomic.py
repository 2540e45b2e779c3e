"""Allocations that cannot wait (GFP_ATOMIC), and the blocks that are kept for those of high order (mm/page_alloc.c, 6.18).

Nobody has been told to make room when they come, so that they may take of what others must leave: five eighths of the min
watermark, and blocks of type HIGHATOMIC. One that had to, with an order above 0, has its block become of that type. 7.3 does
not refill a CPU's list for them, and keeps no block for what came from there.
"""

from gmemlab.core.buddy import (
    alloc_from_zone,
    has_chunk,
    has_chunk_of,
    move_free_chunks,
    note_taken,
    take_smallest,
)
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, HIGHATOMIC, MOVABLE, NR_ORDERS, NR_PCPTYPES, SPLIT
from gmemlab.core.lists import count_free, list_index, push_block, remove_block
from gmemlab.core.nodes import count_near, may_serve, zone_at
from gmemlab.core.parts import part
from gmemlab.core.pcp import alloc_from_cpu, has_lists
from gmemlab.core.state import State

# -- blocks -----------------------------------------------------------------------------------------------------------------


@jit
def reserve_block(state: State, zone: int, block: int) -> None:
    """Keep a block of which something was allocated for allocations like it (`reserve_highatomic_pageblock`).

    Up to 1 % of the zone, rounded up to whole blocks; none in a zone of which that is less than one.
    """
    record = state.zones[zone]
    pages = int(record.end - record.start) * BLOCK_PAGES // 100
    if pages < BLOCK_PAGES or record.reserved_highatomic >= (pages + BLOCK_PAGES - 1) & ~(BLOCK_PAGES - 1):
        return
    place = state.blocks[block]
    if place.migratetype >= NR_PCPTYPES:
        return
    if place.kind == SPLIT:
        move_free_chunks(state, zone, block, int(place.migratetype), HIGHATOMIC)
    place.migratetype = HIGHATOMIC
    record.reserved_highatomic += BLOCK_PAGES


@jit
def give_chunk(state: State, zone: int, order: int, migratetype: int) -> None:
    """Make the blocks around the first free chunk of one order, which are HIGHATOMIC, blocks of another type."""
    row = list_index(zone, HIGHATOMIC, order)
    node = int(state.free_lists[row].head)
    if order < BLOCK_ORDER:
        block = int(state.frame_slabs[node >> BLOCK_ORDER].block)
        move_free_chunks(state, zone, block, HIGHATOMIC, migratetype)
        state.blocks[block].migratetype = migratetype
        return
    remove_block(state, row, node)
    push_block(state, list_index(zone, migratetype, order), node, order, True)
    for block in range(node, node + (1 << (order - BLOCK_ORDER))):
        state.blocks[block].migratetype = migratetype
    count_free(state, zone, HIGHATOMIC, -(1 << order))
    count_free(state, zone, migratetype, 1 << order)


@part
def unreserve(state: State, migratetype: int, force: bool, node: int, allowed: int) -> bool:
    """Have what is free of a HIGHATOMIC block be of a type that is short of memory (`unreserve_highatomic_pageblock`).

    Zones in the order in which the node asks them, of allowed nodes; a zone's last block stays unless that is forced. Returns
    whether there was one.
    """
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        record = state.zones[zone]
        if not may_serve(state, zone, migratetype, allowed) or record.reserved_highatomic <= (0 if force else BLOCK_PAGES):
            continue
        for order in range(NR_ORDERS):
            if state.free_lists[list_index(zone, HIGHATOMIC, order)].head:
                record.reserved_highatomic -= max(BLOCK_PAGES, 1 << order)
                give_chunk(state, zone, order, migratetype)
                return True
    return False


# -- allocation -------------------------------------------------------------------------------------------------------------


@jit
def reserves_suffice(state: State, zone: int, order: int, migratetype: int, mark: int) -> bool:
    """Whether a zone has a chunk, and then three eighths of a watermark above what is protected (`__zone_watermark_ok`)."""
    record = state.zones[zone]
    if order and state.host[0].nr_cpus:
        if not has_chunk(state, zone, order, migratetype) and not has_chunk_of(state, zone, order, HIGHATOMIC):
            return False
    half = mark - mark // 2
    free = record.free - (1 << order) - (0 if migratetype == MOVABLE else record.free_cma)
    return bool(free >= half - half // 4 + record.reserve - record.wmark_min)


@jit
def is_above_min(state: State, zone: int, order: int, migratetype: int) -> bool:
    """The same of the min watermark, without its boost for base pages (`zone_watermark_fast`)."""
    record = state.zones[zone]
    boost = 0 if order == 0 else int(record.boost)
    return reserves_suffice(state, zone, order, migratetype, int(record.wmark_min) + boost)


@jit
def alloc_from_reserves(state: State, zone: int, order: int, migratetype: int) -> int:
    """A chunk of a zone (`rmqueue`): of the CPU's list, HIGHATOMIC blocks, others; for base pages HIGHATOMIC blocks last.

    The block of one of order above 0 is kept, wherever it came from (`get_page_from_freelist`).
    """
    pfn = alloc_from_cpu(state, zone, order, migratetype, 0) if has_lists(state, order) else 0
    if pfn == 0 and order == 0:
        pfn = alloc_from_zone(state, zone, order, migratetype, 0)
    if pfn == 0:
        pfn = take_smallest(state, zone, HIGHATOMIC, order)
        if pfn:
            note_taken(state, zone, pfn, order)
    if pfn == 0 and order:
        pfn = alloc_from_zone(state, zone, order, migratetype, 0)
    if pfn and order:
        reserve_block(state, zone, pfn >> BLOCK_ORDER)
    return pfn


@part
def alloc_atomic(state: State, order: int, migratetype: int, node: int, allowed: int) -> int:
    """What GFP_ATOMIC tries when no zone is above its low watermark, order 9 at most. Returns the first frame, or 0."""
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        if not may_serve(state, zone, migratetype, allowed):
            continue
        record = state.zones[zone]
        high = int(record.wmark_min + record.high + record.boost)
        if state.host[0].nr_cpus and not reserves_suffice(state, zone, order, migratetype, high):
            record.below_high = 1
        if is_above_min(state, zone, order, migratetype):
            pfn = alloc_from_reserves(state, zone, order, migratetype)
            if pfn:
                count_near(state, zone, order, migratetype, node, allowed)
                return pfn
    return 0
