"""Compaction: movable folios leave the low blocks of a zone for free frames in its high blocks (mm/compaction.c, 6.18).

Two scanners move towards each other. The one for sources takes the folios of a block in clusters; the one for targets
isolates free chunks of movable blocks, whole chunks, as many as the cluster needs. What is isolated is on no free list; what is
left of it at the end is freed. A zone remembers where its scanners stopped. Pinned and referenced folios, unmovable memory and
huge pages stay.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import has_chunk
from gmemlab.core.daemons.fragmentation import fragmentation_score_wmark, fragmentation_score_zone
from gmemlab.core.frames import open_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_FREE,
    FRAME_ISOLATED,
    FRAME_TAIL,
    FRAME_USED,
    MOVABLE,
    NR_MIGRATETYPES,
    NR_ORDERS,
    SPLIT,
    UNIFORM,
)
from gmemlab.core.lists import count_free, list_index, pfn_of, push_frame, remove_frame
from gmemlab.core.migrate import move_frames, split_source
from gmemlab.core.nodes import may_serve, zone_at
from gmemlab.core.page_alloc import free_pages, is_suitable
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_cpu
from gmemlab.core.state import State

CLUSTER = 32  # COMPACT_CLUSTER_MAX: pages that are isolated before they are moved
WHOLE_ZONE = -1  # the order of /proc/sys/vm/compact_memory: no particular size is wanted
PROACTIVE = -2  # the same, until the zone is no longer too fragmented (`cc->proactive_compaction`)
SUCCESS = 0  # a chunk of the wanted order is free, or the zone is no longer too fragmented
COMPLETE = 1  # the scanners met
CONTENDED = 2  # no more targets, though the scanners are apart
MAX_DEFER_SHIFT = 6  # COMPACT_MAX_DEFER_SHIFT


# -- free frames taken as targets -------------------------------------------------------------------------------------------


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
def isolate_chunk(state: State, zone: int, block: int, slot: int) -> int:
    """Take a free chunk of a split block off its free list (`__isolate_free_page`). Returns its pages."""
    record = state.blocks[block]
    order = int(state.frames[slot].order)
    remove_frame(state, list_index(zone, int(record.migratetype), order), slot)
    record.nr_free -= 1 << order
    count_free(state, zone, int(record.migratetype), -(1 << order))
    put_isolated(state, slot, order, True)
    return 1 << order


@part
def isolate_free(state: State, zone: int, wanted: int) -> None:
    """Isolate free chunks until there are `wanted` pages, from the block of the target scanner downwards.

    Blocks that are free as a whole, and those of other types than MOVABLE and CMA, are no targets
    (`suitable_migration_target`). The zone's reserve ends it, too.
    """
    record = state.zones[zone]
    got = 0
    while got < wanted and record.compact_free >> BLOCK_ORDER > record.compact_migrate >> BLOCK_ORDER:
        block = int(record.compact_free) >> BLOCK_ORDER
        offset = int(record.compact_free) & (BLOCK_PAGES - 1)
        target = state.blocks[block]
        if target.kind == SPLIT and target.nr_free > 0 and (target.migratetype == MOVABLE or target.migratetype == CMA):
            start = offset
            base = int(target.detail) * BLOCK_PAGES
            while got < wanted and offset < BLOCK_PAGES:
                frame = state.frames[base + offset]
                pages = 1 if frame.kind == FRAME_TAIL else 1 << int(frame.order)
                if frame.kind == FRAME_FREE:
                    if record.free - record.free_highatomic - 2 * pages < record.reserve:
                        wanted = 0
                        break
                    got += isolate_chunk(state, zone, block, base + offset)
                offset += pages
            state.tally[layout.TALLY_COMPACT_FREE_SCANNED] += offset - start
            if offset < BLOCK_PAGES:
                record.compact_free = (block << BLOCK_ORDER) + offset
                return
        record.compact_free = (block - 1) << BLOCK_ORDER


@jit
def take_isolated(state: State, order: int) -> int:
    """A frame slot of 2**order isolated frames, cut from the smallest chunk that has them (`compaction_alloc`); 0 if none."""
    for larger in range(order, BLOCK_ORDER):
        row = isolated_list(state, larger)
        slot = int(state.free_lists[row].head)
        if slot:
            remove_frame(state, row, slot)
            for half in range(larger - 1, order - 1, -1):
                put_isolated(state, slot + (1 << half), half, False)
            return slot
    return 0


@jit
def release_isolated(state: State) -> None:
    """Free what was isolated and not used (`release_free_list`)."""
    for order in range(BLOCK_ORDER):
        row = isolated_list(state, order)
        while state.free_lists[row].head:
            slot = int(state.free_lists[row].head)
            pfn = pfn_of(state, slot)
            remove_frame(state, row, slot)
            free_pages(state, pfn, order)


# -- folios that move -------------------------------------------------------------------------------------------------------


@jit
def may_move(state: State, slot: int, most: int) -> bool:
    """Whether a folio of at most order `most` starts at this frame, and can be migrated: movable, idle, mapped as a whole."""
    frame = state.frames[slot]
    order = int(frame.order)
    if frame.kind != FRAME_USED or order > most or slot & ((1 << order) - 1) or frame.busy:
        return False
    for member in range(slot + 1, slot + (1 << order)):
        if state.frames[member].kind != FRAME_USED:
            return False
    return bool(state.policies[state.files[frame.owner].policy].movable)


@jit
def is_source(state: State, block: int) -> bool:
    """Whether a block holds anything movable in folios below order 9."""
    record = state.blocks[block]
    if record.kind == UNIFORM:
        return bool(state.policies[state.files[record.owner].policy].movable)
    return bool(record.kind == SPLIT and record.nr_movable > 0)


@jit
def cluster_end(state: State, base: int, offset: int, most: int) -> tuple[int, int]:
    """Where the next cluster of a block ends, from `offset` on, and how many pages in it can move."""
    pages = 0
    while offset < BLOCK_PAGES and pages < CLUSTER:
        frame = state.frames[base + offset]
        size = 1 if frame.kind == FRAME_TAIL else 1 << int(frame.order)
        if may_move(state, base + offset, most):
            pages += size
        offset += size
    return offset, pages


@jit
def find_target(state: State, zone: int, order: int, pages: int) -> int:
    """A slot of 2**order isolated frames; where there are none, `pages` more are isolated first. 0 if that does not help."""
    target = take_isolated(state, order)
    if target == 0:
        isolate_free(state, zone, pages)
        target = take_isolated(state, order)
    return target


@jit
def move_cluster(state: State, zone: int, most: int) -> bool:
    """Move what can of the next cluster of the source scanner's block, the last folio first; False where targets end.

    The scanner then stands behind the cluster, or at the next block.
    """
    record = state.zones[zone]
    block = int(record.compact_migrate) >> BLOCK_ORDER
    start = int(record.compact_migrate) & (BLOCK_PAGES - 1)
    if not is_source(state, block):
        record.compact_migrate = (block + 1) << BLOCK_ORDER
        return True
    if state.blocks[block].kind == UNIFORM:
        open_block(state, block)
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    end, left = cluster_end(state, base, start, most)
    state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED] += end - start
    record.compact_migrate = (block << BLOCK_ORDER) + end
    offset = end - 1
    while offset >= start and left > 0 and state.blocks[block].kind == SPLIT:  # else its last folio went, and it is free
        if may_move(state, base + offset, most):
            order = int(state.frames[base + offset].order)
            pfn = (block << BLOCK_ORDER) + offset
            target = find_target(state, zone, order, left)
            if target:
                left -= 1 << order
                move_frames(state, pfn, target)
                free_pages(state, pfn, order)
            elif order:
                split_source(state, pfn, order)
                offset += 1 << order  # again from its last page on
            else:
                return False
        offset -= 1
    return True


# -- runs -------------------------------------------------------------------------------------------------------------------


@jit
def reset_scanners(state: State, zone: int) -> None:
    """Sources from the start of the zone, targets from its end (`reset_cached_positions`)."""
    record = state.zones[zone]
    record.compact_migrate = int(record.start) << BLOCK_ORDER
    record.compact_free = (int(record.end) - 1) << BLOCK_ORDER


@jit
def is_enough(state: State, zone: int, order: int, migratetype: int) -> bool:
    """Whether a run may end before the scanners meet (`__compact_finished`): for an order, at a block's border only."""
    if order == PROACTIVE:
        return fragmentation_score_zone(state, zone) <= fragmentation_score_wmark(state, True)
    at_border = state.zones[zone].compact_migrate & (BLOCK_PAGES - 1) == 0
    return order != WHOLE_ZONE and at_border and has_chunk(state, zone, order, migratetype)


@part
def compact_zone(state: State, zone: int, order: int, migratetype: int) -> int:
    """Compact until a chunk of `order` is free for a type, or (`WHOLE_ZONE`, `PROACTIVE`) from the zone's start on.

    Returns SUCCESS, COMPLETE or CONTENDED.
    """
    record = state.zones[zone]
    if order < 0 or record.compact_migrate == 0:
        reset_scanners(state, zone)
    most = BLOCK_ORDER - 1 if order < 0 else min(order, BLOCK_ORDER) - 1
    result = COMPLETE
    last = 0  # the block in which folios moved since the CPU gave back what it keeps
    while record.compact_free >> BLOCK_ORDER > record.compact_migrate >> BLOCK_ORDER:
        if is_enough(state, zone, order, migratetype):
            result = SUCCESS
            break
        moved = int(state.tally[layout.TALLY_COMPACT_MOVED])
        if not move_cluster(state, zone, most):
            if record.compact_free >> BLOCK_ORDER > record.compact_migrate >> BLOCK_ORDER:
                result = CONTENDED
            break
        if state.tally[layout.TALLY_COMPACT_MOVED] > moved:
            last = (int(record.compact_migrate) - 1) & ~(BLOCK_PAGES - 1)
        if order > 0 and state.host[0].nr_cpus and 0 < last < record.compact_migrate & ~((1 << order) - 1):
            drain_cpu(state, zone, int(state.host[0].cpu))  # so that what was moved away can merge
            last = 0
    release_isolated(state)
    if result == COMPLETE:
        reset_scanners(state, zone)
    if order >= 0 and has_chunk(state, zone, order, migratetype):
        result = SUCCESS
    return result


@part
def compact(state: State) -> int:
    """What a write to /proc/sys/vm/compact_memory does: all zones. Returns how many pages moved."""
    before = int(state.tally[layout.TALLY_COMPACT_MOVED])
    for zone in range(int(state.host[0].nr_zones)):
        compact_zone(state, zone, WHOLE_ZONE, MOVABLE)
    return int(state.tally[layout.TALLY_COMPACT_MOVED]) - before


@jit
def is_deferred(state: State, zone: int, order: int) -> bool:
    """Whether compaction for this order failed lately: then 2**shift - 1 attempts are passed over (`compaction_deferred`)."""
    record = state.zones[zone]
    if order < record.compact_order_failed:
        return False
    record.compact_considered = min(int(record.compact_considered) + 1, 1 << int(record.compact_defer_shift))
    return bool(record.compact_considered < 1 << int(record.compact_defer_shift))


@jit
def note_result(state: State, zone: int, order: int, result: int) -> None:
    """A failure doubles the number of attempts that are passed over, up to 64; a success forgets it (`defer_compaction`)."""
    record = state.zones[zone]
    if result == SUCCESS:
        record.compact_considered = 0
        record.compact_defer_shift = 0
        record.compact_order_failed = max(int(record.compact_order_failed), order + 1)
    elif result == COMPLETE:
        record.compact_considered = 0
        record.compact_defer_shift = min(int(record.compact_defer_shift) + 1, MAX_DEFER_SHIFT)
        record.compact_order_failed = min(int(record.compact_order_failed), order)


@part
def compact_for(state: State, order: int, migratetype: int, notes: bool, node: int, allowed: int) -> bool:
    """Direct compaction for an allocation that found no chunk of `order` (`try_to_compact_pages`). True where one is free now.

    Zones in the order in which the node asks them, of allowed nodes; unmovable memory may not come from ZONE_MOVABLE. A zone
    where it failed lately is passed over. Orders above 3 never get more than this, however hard they try
    (`MIN_COMPACT_COSTLY_PRIORITY`). Without `notes` a failure is not remembered: reclaim comes next, and then another try
    (COMPACT_PRIO_ASYNC).
    """
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        if (
            not may_serve(state, zone, migratetype, allowed)
            or not is_suitable(state, zone, order, 0)
            or is_deferred(state, zone, order)
        ):
            continue
        state.tally[layout.TALLY_COMPACT_RUNS] += 1
        result = compact_zone(state, zone, order, migratetype)
        if notes or result == SUCCESS:
            note_result(state, zone, order, result)
        if result == SUCCESS:
            return True
    return False
