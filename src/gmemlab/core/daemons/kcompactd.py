"""kcompactd: compacts zones by itself, for allocations that failed and against fragmentation (mm/compaction.c, 6.18).

Each node has its own, for its zones, whatever lies there: the host's own memory, page cache, files of any policy that is
movable. What a failed allocation asks for is done when time passes next.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import has_chunk
from gmemlab.core.daemons.compaction import (
    COMPLETE,
    MAX_DEFER_SHIFT,
    PROACTIVE,
    compact_zone,
    is_deferred,
    note_result,
)
from gmemlab.core.daemons.fragmentation import fragmentation_score_node, fragmentation_score_wmark, is_suitable
from gmemlab.core.daemons.record import KCOMPACTD_INTERVAL
from gmemlab.core.daemons.skip_hints import SYNC_LIGHT
from gmemlab.core.jit import jit
from gmemlab.core.layout import UNMOVABLE, ZONE_MOVABLE
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_zone
from gmemlab.core.state import State


@jit
def do_work(state: State, node: int) -> None:
    """Compact a node for the largest order that was asked for (`kcompactd_do_work`): zones upwards, those that lack it."""
    asked = state.nodes[node]
    order = int(asked.max_order)
    for zone in range(int(state.host[0].nr_zones) - 1, -1, -1):
        record = state.zones[zone]
        if record.node != node or record.kind > asked.highest_zone or is_deferred(state, zone, order):
            continue
        if has_chunk(state, zone, order, UNMOVABLE) or not is_suitable(state, zone, order, 0):
            continue
        state.tally[layout.TALLY_KCOMPACTD_RUNS] += 1
        result = compact_zone(state, zone, order, UNMOVABLE, SYNC_LIGHT, False)  # GFP_KERNEL
        if result == COMPLETE:
            drain_zone(state, zone)  # before it is said to have failed
        note_result(state, zone, order, result)
    asked.max_order = 0
    asked.highest_zone = ZONE_MOVABLE


@jit
def compact_proactively(state: State, node: int) -> int:
    """Compact every zone of a node down to its low watermark (`compact_node`). Returns how long it sleeps then.

    Longer (32 s) where the score did not fall.
    """
    before = fragmentation_score_node(state, node)
    for zone in range(int(state.host[0].nr_zones) - 1, -1, -1):
        if state.zones[zone].node == node:
            state.tally[layout.TALLY_KCOMPACTD_RUNS] += 1
            compact_zone(state, zone, PROACTIVE, UNMOVABLE, SYNC_LIGHT, False)
    won = fragmentation_score_node(state, node) < before
    return KCOMPACTD_INTERVAL if won else KCOMPACTD_INTERVAL << MAX_DEFER_SHIFT


@jit
def let_pass(state: State, node: int, milliseconds: int) -> None:
    """Let time pass for the kcompactd of a node.

    It looks every 500 ms whether the node is too fragmented (`should_proactive_compact_node`); where it is not, nothing changes
    that until the next event. Its work takes no time.
    """
    record = state.nodes[node]
    proactive = state.daemons[0].proactiveness > 0
    if record.max_order:
        do_work(state, node)
        record.kcompactd_sleep = KCOMPACTD_INTERVAL
    while milliseconds >= record.kcompactd_sleep:
        milliseconds -= int(record.kcompactd_sleep)
        record.kcompactd_sleep = KCOMPACTD_INTERVAL
        if proactive and fragmentation_score_node(state, node) > fragmentation_score_wmark(state, False):
            record.kcompactd_sleep = compact_proactively(state, node)
        else:
            milliseconds %= KCOMPACTD_INTERVAL
    record.kcompactd_sleep -= milliseconds


@part
def kcompactd(state: State, milliseconds: int) -> int:
    """Let time pass for the kcompactd of every node; what one does changes nothing for others. Returns how many pages moved."""
    before = int(state.tally[layout.TALLY_COMPACT_MOVED])
    for node in range(int(state.host[0].nr_nodes)):
        let_pass(state, node, milliseconds)
    return int(state.tally[layout.TALLY_COMPACT_MOVED]) - before
