"""How fragmented zones are, as proactive compaction counts it (mm/compaction.c, mm/vmstat.c).

The watermarks are those of 7.3; in 6.12 `wmark_low` was 5 at least, and the leeway always 10. By default both give 80 and 90.
"""

from gmemlab.core.buddy import free_blocks_of_types
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.state import State


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
