"""Where memory is had and given back: zones in order of preference, their watermarks, and the lists of the CPUs (6.18).

A frame number of 0 means that nothing could be had.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import alloc_from_zone, claim, free_block, free_chunk, has_chunk, take_smallest
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, MOVABLE
from gmemlab.core.lists import list_index
from gmemlab.core.pcp import alloc_from_cpu, free_to_cpu, has_lists
from gmemlab.core.state import State

# How hard an allocation tries, in this order (`get_page_from_freelist`, then `__alloc_pages_slowpath`).
UNMIXED = 0  # above the low watermarks, and small chunks of no other type (ALLOC_NOFRAGMENT)
EASY = 1  # above the low watermarks
HARD = 2  # above the min watermarks
NR_EFFORTS = 3


@jit
def is_open(state: State, zone: int, migratetype: int) -> bool:
    """Whether a zone serves a migratetype: ZONE_MOVABLE has movable memory only."""
    return bool(state.zones[zone].kind != layout.ZONE_MOVABLE or migratetype == MOVABLE)


@jit
def is_above(state: State, zone: int, order: int, mark: int) -> bool:
    """Whether a zone has a chunk to give, and `mark` pages above its reserve then (`zone_watermark_fast`)."""
    record = state.zones[zone]
    if record.free - (1 << order) < record.reserve + mark:
        return False
    return order == 0 or state.host[0].nr_cpus == 0 or has_chunk(state, zone, order)


@jit
def avoids_mixing(state: State, migratetype: int) -> bool:
    """Whether zone DMA32 is asked before blocks of the Normal zone get pages of two types (`alloc_flags_nofragment`)."""
    if state.host[0].nofragment:
        for zone in range(int(state.host[0].nr_zones)):
            if is_open(state, zone, migratetype):
                return bool(state.zones[zone].kind == layout.ZONE_NORMAL)
    return False


@inline
def try_zone(state: State, zone: int, order: int, migratetype: int, effort: int) -> int:
    """Take a chunk from one zone, if it may give one. Returns its first frame, or 0."""
    record = state.zones[zone]
    if state.host[0].nr_cpus and not is_above(state, zone, order, int(record.high)):
        record.below_high = 1
    if not is_above(state, zone, order, 0 if effort == HARD else int(record.low)):
        return 0
    least = BLOCK_ORDER if effort == UNMIXED and order < BLOCK_ORDER else 0
    pfn = alloc_from_cpu(state, zone, order, migratetype, least) if has_lists(state, order) else 0
    if pfn == 0:
        pfn = alloc_from_zone(state, zone, order, migratetype, least)
    return pfn


@jit
def alloc(state: State, order: int, migratetype: int) -> int:
    """Take a chunk of 2**order frames on a host of one node, zones in order of preference. Returns its first frame, or 0."""
    host = state.host[0]
    for effort in range(UNMIXED if avoids_mixing(state, migratetype) else EASY, NR_EFFORTS if host.watermarks else HARD):
        for zone in range(int(host.nr_zones)):
            if is_open(state, zone, migratetype):
                pfn = try_zone(state, zone, order, migratetype, effort)
                if pfn:
                    return pfn
    return 0


@jit
def alloc_base_block(state: State, migratetype: int) -> int:
    """The 512 frames that 512 order-0 allocations would hand out on a host of one node, if these are one fresh block; else 0.

    True as long as every smaller list of the type is empty in the zone that order-0 allocations would use, and no CPU keeps
    lists.
    """
    host = state.host[0]
    if host.nr_cpus:
        return 0
    for effort in range(EASY, NR_EFFORTS if host.watermarks else HARD):
        for zone in range(int(host.nr_zones)):
            mark = 0 if effort == HARD else int(state.zones[zone].low)
            if is_open(state, zone, migratetype) and is_above(state, zone, 0, mark):
                return alloc_block_of(state, zone, migratetype, mark)
    return 0


@jit
def alloc_block_of(state: State, zone: int, migratetype: int, mark: int) -> int:
    """The same, of one zone, above a watermark."""
    record = state.zones[zone]
    if record.free - BLOCK_PAGES < record.reserve + mark:
        return 0
    row = list_index(zone, migratetype, 0)
    for order in range(BLOCK_ORDER):
        if state.free_lists[row + order].head:
            return 0
    pfn = take_smallest(state, zone, migratetype, BLOCK_ORDER)
    if pfn == 0:
        pfn = claim(state, zone, migratetype, BLOCK_ORDER, 0)
    if pfn:
        record.free -= BLOCK_PAGES
    return pfn


@jit
def free_pages(state: State, pfn: int, order: int) -> None:
    """Free 2**order frames, order 9 at most: to the lists of the CPU, or at once. Details of frames must be cleared already."""
    if has_lists(state, order):
        free_to_cpu(state, pfn, order)
    elif order == BLOCK_ORDER:
        free_block(state, pfn >> BLOCK_ORDER)
    else:
        free_chunk(state, pfn, order)
