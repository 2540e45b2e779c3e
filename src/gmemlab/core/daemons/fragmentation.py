"""How fragmented zones are, and whether that is worth compaction (mm/compaction.c, mm/vmstat.c, 6.18).

In 6.12 `wmark_low` was 5 at least, and the leeway always 10; by default both releases give 80 and 90.
"""

from gmemlab.core.buddy import free_blocks_of_types, has_chunk_of, spare
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES, COSTLY_ORDER, MOVABLE, NR_MIGRATETYPES
from gmemlab.core.lists import list_index
from gmemlab.core.state import State

EXTFRAG_THRESHOLD = 500  # vm.extfrag_threshold


@jit
def fragmentation_score_zone(state: State, zone: int) -> int:
    """Share of a zone's free pages that lie outside 2 MiB chunks, in percent (`extfrag_for_order`)."""
    free = int(state.zones[zone].free + state.zones[zone].free_isolated)
    if free == 0:
        return 0
    return (free - free_blocks_of_types(state, zone) * BLOCK_PAGES) * 100 // free


@jit
def fragmentation_score_node(state: State, node: int) -> int:
    """The scores of all zones of a node, each weighted with its size and rounded down by itself."""
    present = 0
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].node == node:
            present += int(state.zones[zone].end - state.zones[zone].start) * BLOCK_PAGES
    score = 0
    for zone in range(int(state.host[0].nr_zones)):
        if state.zones[zone].node == node:
            pages = int(state.zones[zone].end - state.zones[zone].start) * BLOCK_PAGES
            score += pages * fragmentation_score_zone(state, zone) // (present + 1)
    return score


@jit
def fragmentation_score_wmark(state: State, low: bool) -> int:
    """The score above which proactive compaction starts, or (`low`) at which it ends."""
    wmark_low = 100 - int(state.daemons[0].proactiveness)
    return wmark_low if low else min(wmark_low + min(10, wmark_low // 2), 100)


@jit
def fragmentation_index(state: State, zone: int, order: int) -> int:
    """Whether an order is short as memory is (towards 0) or as it lies in pieces (towards 1000); -1000 if there is a chunk."""
    chunks = 0
    for migratetype in range(NR_MIGRATETYPES):
        if has_chunk_of(state, zone, order, migratetype):
            return -1000
        for smaller in range(order):
            chunks += int(state.free_lists[list_index(zone, migratetype, smaller)].count)
    if chunks == 0:
        return 0
    free = int(state.zones[zone].free + state.zones[zone].free_isolated)
    return 1000 - (1000 + free * 1000 // (1 << order)) // chunks


@jit
def is_suitable(state: State, zone: int, order: int, above: int) -> bool:
    """Whether there are base pages for compaction's targets: twice the size of what is wanted, `above` the min watermark.

    For orders above 3 that much above the low one (`compaction_suitable`, `compact_gap`), and free memory must lie in pieces
    that are small on average.
    """
    mark = above + (int(state.zones[zone].low) if order > COSTLY_ORDER else 0)
    if spare(state, zone, MOVABLE) - (2 << order) < mark:
        return False
    return order <= COSTLY_ORDER or not 0 <= fragmentation_index(state, zone, order) <= EXTFRAG_THRESHOLD
