"""Where memory is had and given back: zones in order of preference, their watermarks, and the lists of the CPUs (6.18).

A frame number of 0 means that nothing could be had.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import (
    alloc_from_zone,
    claim,
    has_chunk,
    note_taken,
    prefers_cma,
    spare,
    take_head,
    take_smallest,
)
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, CMA, MOVABLE, NR_ORDERS
from gmemlab.core.lists import count_free, list_index
from gmemlab.core.pcp import alloc_from_cpu, free_at_once, free_to_cpu, has_lists
from gmemlab.core.state import State

# How hard an allocation tries, in this order (`get_page_from_freelist`, then `__alloc_pages_slowpath`).
UNMIXED = 0  # above the low watermarks, and small chunks of no other type (ALLOC_NOFRAGMENT)
EASY = 1  # above the low watermarks
HARD = 2  # above the min watermarks


@jit
def is_open(state: State, zone: int, migratetype: int) -> bool:
    """Whether a zone serves a migratetype: ZONE_MOVABLE has movable memory only."""
    return bool(state.zones[zone].kind != layout.ZONE_MOVABLE or migratetype == MOVABLE)


@jit
def is_above(state: State, zone: int, order: int, migratetype: int, mark: int) -> bool:
    """Whether a zone has a chunk to give, and `mark` pages above its reserve then (`zone_watermark_fast`)."""
    if spare(state, zone, migratetype) - (1 << order) < mark:
        return False
    return order == 0 or state.host[0].nr_cpus == 0 or has_chunk(state, zone, order, migratetype)


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
    if state.host[0].nr_cpus and not is_above(state, zone, order, migratetype, int(record.high)):
        record.below_high = 1
    if not is_above(state, zone, order, migratetype, 0 if effort == HARD else int(record.low)):
        return 0
    least = BLOCK_ORDER if effort == UNMIXED and order < BLOCK_ORDER else 0
    pfn = alloc_from_cpu(state, zone, order, migratetype, least) if has_lists(state, order) else 0
    if pfn == 0:
        pfn = alloc_from_zone(state, zone, order, migratetype, least)
    return pfn


@inline
def alloc_at(state: State, order: int, migratetype: int, effort: int) -> int:
    """One try of all zones of a host of one node (`get_page_from_freelist`). Returns the first frame of 2**order, or 0."""
    for zone in range(int(state.host[0].nr_zones)):
        if is_open(state, zone, migratetype):
            pfn = try_zone(state, zone, order, migratetype, effort)
            if pfn:
                return pfn
    return 0


@jit
def alloc_easily(state: State, order: int, migratetype: int) -> int:
    """Take a chunk from a zone that stays above its low watermark, on a host of one node. Returns its first frame, or 0."""
    for effort in range(UNMIXED if avoids_mixing(state, migratetype) else EASY, HARD):
        pfn = alloc_at(state, order, migratetype, effort)
        if pfn:
            return pfn
    return 0


@jit
def alloc_base_block(state: State, migratetype: int) -> int:
    """The 512 frames that 512 order-0 allocations would hand out, if these are one fresh block above the low watermarks.

    Else 0. On a host of one node. True as long as every smaller list of the type is empty in the zone that order-0 allocations
    would use, and no CPU keeps lists.
    """
    host = state.host[0]
    if host.nr_cpus:
        return 0
    for zone in range(int(host.nr_zones)):
        mark = int(state.zones[zone].low)
        if is_open(state, zone, migratetype) and is_above(state, zone, 0, migratetype, mark):
            return alloc_block_of(state, zone, migratetype, mark)
    return 0


@inline
def alloc_base_chunk(state: State, migratetype: int, most: int) -> tuple[int, int]:
    """A chunk of at most `most` frames, below order 9: those that the next order-0 allocations would hand out, in order.

    They cut the smallest chunk, and use up what they cut off before they cut another. On a host of one node. Returns (first
    frame, order); (0, 0) where a CPU keeps lists, memory of other types would help out, or a watermark is near.
    """
    host = state.host[0]
    if host.nr_cpus:
        return 0, 0
    for zone in range(int(host.nr_zones)):
        record = state.zones[zone]
        mark = int(record.low)
        if is_open(state, zone, migratetype) and is_above(state, zone, 0, migratetype, mark):
            if migratetype == MOVABLE and record.free_cma > 0:
                return 0, 0
            row = list_index(zone, migratetype, 0)
            found = 0
            while found < NR_ORDERS and state.free_lists[row + found].head == 0:
                found += 1
            order = min(found, BLOCK_ORDER - 1)
            while (1 << order) > most:  # most often not at all, which the processor foresees
                order -= 1
            if found == NR_ORDERS or not is_above(state, zone, order, migratetype, mark):
                return 0, 0
            pfn = take_head(state, zone, migratetype, found, order)
            note_taken(state, zone, pfn, order)
            return pfn, order
    return 0, 0


@inline
def alloc_base_pages_easily(state: State, migratetype: int, most: int) -> tuple[int, int]:
    """`alloc_base_chunk`, or `alloc_easily` of one base page where that has none. Returns (first frame or 0, order)."""
    pfn, order = alloc_base_chunk(state, migratetype, most)
    if pfn == 0:
        pfn = alloc_easily(state, 0, migratetype)
    return pfn, order


@jit
def alloc_block_of(state: State, zone: int, migratetype: int, mark: int) -> int:
    """The same, of one zone, above a watermark."""
    if spare(state, zone, migratetype) - BLOCK_PAGES < mark:
        return 0
    source = migratetype
    cma = migratetype == MOVABLE and state.zones[zone].free_cma > 0
    if cma and prefers_cma(state, zone):
        source = CMA
    if cma and not stays_with(state, zone, source):
        return 0
    row = list_index(zone, source, 0)
    for order in range(BLOCK_ORDER):
        if state.free_lists[row + order].head:
            return 0
    pfn = take_smallest(state, zone, source, BLOCK_ORDER)
    if pfn == 0 and not cma:
        pfn = claim(state, zone, migratetype, BLOCK_ORDER, 0)
    if pfn:
        count_free(state, zone, source, -BLOCK_PAGES)
    return pfn


@jit
def stays_with(state: State, zone: int, source: int) -> bool:
    """Whether all of 512 movable pages come from CMA blocks first, or (`source` MOVABLE) none, as that half is not crossed."""
    record = state.zones[zone]
    last = BLOCK_PAGES - 1
    if source == CMA:
        return bool(record.free_cma - last > (record.free - last) // 2)
    return bool(record.free_cma <= (record.free - last) // 2)


@inline
def free_pages(state: State, pfn: int, order: int) -> None:
    """Free 2**order frames, order 9 at most: to the lists of the CPU, or at once. Details of frames must be cleared already."""
    if has_lists(state, order):
        free_to_cpu(state, pfn, order)
    else:
        free_at_once(state, pfn, order)
