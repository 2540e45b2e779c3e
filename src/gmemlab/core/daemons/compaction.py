"""Compaction: movable folios leave the low blocks of a zone for free frames in its high blocks (mm/compaction.c, 6.18).

Two scanners move towards each other (`migrate_scanner`, `free_scanner`). A zone remembers where they are to start, and which
blocks they need not visit (`skip_hints`), so that what a run wins depends on those before it.

Not modelled: an allocation gets the first chunk of the list, not the one that it would capture; chunks of order 3 and below are
not sought with the hints ignored (MIN_COMPACT_PRIORITY); and on a host of one node a huge page fault makes its first try once,
not before for its own node alone (`alloc_pages_mpol`). `defrag_mode` is off. 7.3 is alike but for sources: at the first try it
scans movable blocks for whole blocks of unmovable memory, too, and for that memory never CMA (`suitable_migration_source`).
"""

from gmemlab.core import layout
from gmemlab.core.buddy import find_fallback, has_chunk, has_chunk_of, spare
from gmemlab.core.daemons.fragmentation import fragmentation_score_wmark, fragmentation_score_zone, is_suitable
from gmemlab.core.daemons.free_scanner import release_isolated
from gmemlab.core.daemons.migrate_scanner import NO_TARGET, isolate_sources, move_isolated
from gmemlab.core.daemons.skip_hints import (
    ASYNC,
    SYNC,
    reset_cached_positions,
    reset_isolation_suitable,
)
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, CMA, COSTLY_ORDER, MOVABLE, NR_ORDERS, RECLAIMABLE, UNMOVABLE
from gmemlab.core.lists import list_index
from gmemlab.core.nodes import may_serve, zone_at
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_cpu
from gmemlab.core.state import State

WHOLE_ZONE = -1  # the order of /proc/sys/vm/compact_memory: no particular size is wanted
PROACTIVE = -2  # the same, until the zone is no longer too fragmented (`cc->proactive_compaction`)
# enum compact_result; of several zones the highest counts
SKIPPED = 1  # there is no room for it
DEFERRED = 2  # it failed lately
CONTINUE = 3
COMPLETE = 4  # the scanners met
CONTENDED = 5  # no more targets, though the scanners are apart
SUCCESS = 6  # a chunk of the wanted order is free, or the zone is no longer too fragmented
MAX_DEFER_SHIFT = 6  # COMPACT_MAX_DEFER_SHIFT


# -- a run ------------------------------------------------------------------------------------------------------------------


@jit
def begin(state: State, zone: int, order: int, migratetype: int, mode: int, direct: bool) -> None:
    """Make a run for `order`: from where the last ended, or (`WHOLE_ZONE`, `PROACTIVE`) from the zone's ends, hints ignored."""
    control = state.control[0]
    record = state.zones[zone]
    start, last = int(record.start) << BLOCK_ORDER, (int(record.end) - 1) << BLOCK_ORDER
    control.order = order
    control.migratetype = migratetype
    control.mode = mode
    control.direct = direct
    control.ignore_skip_hint = order < 0
    control.nr_free = 0
    control.fast_start = 0
    control.fast_search_fail = 0
    control.search_order = order
    control.migrate = start
    control.free = last
    if order < 0:
        return
    if not start <= record.compact_free < last + BLOCK_PAGES:
        record.compact_free = last
    control.free = int(record.compact_free)
    migrate = int(record.compact_migrate if mode == ASYNC else record.compact_migrate_sync)
    if not start <= migrate < last + BLOCK_PAGES:
        migrate = start
        record.compact_migrate = start
        record.compact_migrate_sync = start
    control.migrate = migrate


@jit
def scanners_met(state: State) -> bool:
    """Whether the target scanner is no longer in a block above the other's."""
    control = state.control[0]
    return bool(control.free >> BLOCK_ORDER <= control.migrate >> BLOCK_ORDER)


@jit
def is_allocatable(state: State, zone: int, order: int, migratetype: int) -> bool:
    """Whether a chunk for `migratetype` is free: of its type (or CMA), or one large enough to take over the block of."""
    for larger in range(order, NR_ORDERS):
        if state.free_lists[list_index(zone, migratetype, larger)].head:
            return True
        if migratetype == MOVABLE and state.free_lists[list_index(zone, CMA, larger)].head:
            return True
        if (migratetype != MOVABLE or larger >= BLOCK_ORDER // 2) and find_fallback(state, zone, migratetype, larger) >= 0:
            return True
    return False


@jit
def is_captured(state: State, zone: int) -> bool:
    """Whether the chunk for which an allocation waits came to be (`compaction_capture`).

    Small chunks of movable blocks are not for others, and chunks of CMA and isolated blocks are nobody's.
    """
    control = state.control[0]
    if control.direct == 0:
        return False
    order = int(control.order)
    if order >= BLOCK_ORDER or control.migratetype == MOVABLE:
        return has_chunk(state, zone, order, UNMOVABLE)
    return has_chunk_of(state, zone, order, UNMOVABLE) or has_chunk_of(state, zone, order, RECLAIMABLE)


@jit
def finished(state: State, zone: int) -> int:
    """Whether a run ends (`compact_finished`): the scanners met; for an order, at a block's border, there is a chunk."""
    control = state.control[0]
    if scanners_met(state):
        reset_cached_positions(state, zone)
        if control.direct:
            state.zones[zone].blockskip_flush = 1
        return COMPLETE
    if control.order == PROACTIVE:
        enough = fragmentation_score_zone(state, zone) <= fragmentation_score_wmark(state, True)
        return SUCCESS if enough else CONTINUE
    if control.order == WHOLE_ZONE or control.migrate & (BLOCK_PAGES - 1):
        return CONTINUE
    return SUCCESS if is_allocatable(state, zone, int(control.order), int(control.migratetype)) else CONTINUE


@jit
def drain_behind(state: State, zone: int, last: int) -> int:
    """Have the CPU give back what it keeps once the scanner left the place in which folios moved, so that it can merge.

    `last`: the block in which they did since it last did so, or 0. Returns what remains of that.
    """
    control = state.control[0]
    if control.order > 0 and 0 < last < control.migrate & ~((1 << int(control.order)) - 1):
        if state.host[0].nr_cpus:
            drain_cpu(state, zone, int(state.host[0].cpu))
        return 0
    return last


@jit
def move_next(state: State, zone: int, last: int, in_step: bool) -> tuple[int, int, bool]:
    """Isolate the next folios, and move them; where some stay, all the rest of their block, too.

    Returns CONTINUE, SUCCESS or CONTENDED, then `last` (see `drain_behind`) and `in_step`: no run found anything to isolate
    since both kinds of runs would start at one place.
    """
    control = state.control[0]
    control.finish_pageblock = last >> BLOCK_ORDER == control.migrate >> BLOCK_ORDER
    while True:
        isolate_sources(state, zone)
        if control.nr_migrate == 0:
            if in_step:
                state.zones[zone].compact_migrate_sync = int(state.zones[zone].compact_migrate)
            return CONTINUE, last, in_step
        in_step = False
        last = (int(control.migrate) - 1) & ~(BLOCK_PAGES - 1)
        stayed = move_isolated(state, zone)
        if stayed == NO_TARGET and not scanners_met(state):
            return CONTENDED, last, in_step
        at_border = control.migrate & (BLOCK_PAGES - 1) == 0
        if stayed == 0 or at_border or control.ignore_skip_hint or control.finish_pageblock:
            return SUCCESS if is_captured(state, zone) else CONTINUE, last, in_step
        control.finish_pageblock = 1
        if control.order == BLOCK_ORDER:
            last = 0


@part
def compact_zone(state: State, zone: int, order: int, migratetype: int, mode: int, direct: bool) -> int:
    """Compact until a chunk of `order` is free, or (`WHOLE_ZONE`, `PROACTIVE`) from the zone's start on.

    Args are those of `struct compact_control`. Returns SUCCESS, COMPLETE or CONTENDED.
    """
    record = state.zones[zone]
    if is_restarting(state, zone, order):
        reset_isolation_suitable(state, zone)
    begin(state, zone, order, migratetype, mode, direct)
    in_step = mode == ASYNC and bool(record.compact_migrate == record.compact_migrate_sync)
    last = 0
    result = finished(state, zone)
    while result == CONTINUE:
        result, last, in_step = move_next(state, zone, last, in_step)
        if result == CONTINUE:
            last = drain_behind(state, zone, last)
            result = finished(state, zone)
    release_isolated(state, zone)
    return SUCCESS if is_captured(state, zone) else result


@part
def compact(state: State) -> int:
    """What a write to /proc/sys/vm/compact_memory does: all zones. Returns how many pages moved."""
    before = int(state.tally[layout.TALLY_COMPACT_MOVED])
    for zone in range(int(state.host[0].nr_zones)):
        compact_zone(state, zone, WHOLE_ZONE, UNMOVABLE, SYNC, False)
    return int(state.tally[layout.TALLY_COMPACT_MOVED]) - before


# -- whether to run ---------------------------------------------------------------------------------------------------------


@jit
def is_deferred(state: State, zone: int, order: int) -> bool:
    """Whether compaction for this order failed lately: then 2**shift - 1 attempts are passed over (`compaction_deferred`)."""
    record = state.zones[zone]
    if order < record.compact_order_failed:
        return False
    record.compact_considered = min(int(record.compact_considered) + 1, 1 << int(record.compact_defer_shift))
    return bool(record.compact_considered < 1 << int(record.compact_defer_shift))


@jit
def is_restarting(state: State, zone: int, order: int) -> bool:
    """Whether a run is made after 63 were passed over (`compaction_restarting`)."""
    record = state.zones[zone]
    if order < record.compact_order_failed or record.compact_defer_shift < MAX_DEFER_SHIFT:
        return False
    return bool(record.compact_considered >= 1 << MAX_DEFER_SHIFT)


@jit
def note_result(state: State, zone: int, order: int, result: int) -> None:
    """A failure doubles the number of attempts that are passed over, up to 64 (`defer_compaction`).

    After a success no more are for this order; what is remembered for larger ones stays (`compaction_defer_reset`).
    """
    record = state.zones[zone]
    if result == SUCCESS:
        record.compact_order_failed = max(int(record.compact_order_failed), order + 1)
    elif result == COMPLETE:
        record.compact_considered = 0
        record.compact_defer_shift = min(int(record.compact_defer_shift) + 1, MAX_DEFER_SHIFT)
        record.compact_order_failed = min(int(record.compact_order_failed), order)


@jit
def note_allocation(state: State, pfn: int, order: int) -> None:
    """Once compaction was followed by an allocation, failures in the zone that had it are forgotten, and hints stay."""
    record = state.zones[int(state.blocks[pfn >> BLOCK_ORDER].zone)]
    record.compact_considered = 0
    record.compact_defer_shift = 0
    record.compact_order_failed = max(int(record.compact_order_failed), order + 1)
    record.blockskip_flush = 0


@jit
def lacks_targets(state: State, zone: int, order: int, migratetype: int) -> bool:
    """Whether a costly chunk that may not be CMA would have to come from there (`compaction_suit_allocation_order`)."""
    return bool(order > COSTLY_ORDER and migratetype != MOVABLE and spare(state, zone, migratetype) < 2 << order)


@part
def compact_for(state: State, order: int, migratetype: int, node: int, allowed: int, mode: int) -> int:
    """Direct compaction for an allocation that found no chunk of `order` (`try_to_compact_pages`). Returns what came of it.

    Zones in the order in which the node asks them, of allowed nodes; unmovable memory may not come from ZONE_MOVABLE. A zone
    where it failed lately is passed over. Orders above 3 never get more than SYNC_LIGHT, however hard they try
    (`MIN_COMPACT_COSTLY_PRIORITY`).
    """
    best = SKIPPED
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        if not may_serve(state, zone, migratetype, allowed):
            continue
        if is_deferred(state, zone, order):
            best = max(best, DEFERRED)
            continue
        if not is_suitable(state, zone, order, 0) or (mode == ASYNC and lacks_targets(state, zone, order, migratetype)):
            continue
        state.tally[layout.TALLY_COMPACT_RUNS] += 1
        result = compact_zone(state, zone, order, migratetype, mode, True)
        if result == SUCCESS or mode != ASYNC:
            note_result(state, zone, order, result)
        best = max(best, result)
        if result == SUCCESS:
            break
    return best
