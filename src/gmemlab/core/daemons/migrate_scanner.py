"""Compaction's scanner for sources: movable folios that are isolated in blocks low down in the zone (mm/compaction.c, 6.18).

Folios are isolated in clusters of 32 pages, at a block's second cluster all that is left of it. An asynchronous run for an
allocation gives up the aligned place where a page cannot move, and puts back what it isolated there. Pinned anonymous memory is
not isolated; a folio of a file that is pinned or referenced is, but it stays. Unmovable memory and huge pages stay.
"""

from gmemlab.core import layout
from gmemlab.core.daemons.free_scanner import CLUSTER, find_target
from gmemlab.core.daemons.skip_hints import ASYNC, isolation_suitable, skip_persistent, update_cached_migrate
from gmemlab.core.frames import open_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    COSTLY_ORDER,
    FRAME_DEFERRED,
    FRAME_FREE,
    FRAME_TAIL,
    FRAME_USED,
    KIND_ANON,
    MOVABLE,
    SPLIT,
    UNIFORM,
)
from gmemlab.core.lists import end_list_at, list_index, pfn_of, slot_of
from gmemlab.core.migrate import is_mapped_in_part, move_frames, split_source
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State

NO_TARGET = -1  # what `move_isolated` returns when targets ended


@jit
def is_isolated(state: State, slot: int, most: int) -> bool:
    """Whether a folio of at most order `most` starts at a frame, and is isolated: movable, not pinned."""
    frame = state.frames[slot]
    order = int(frame.order)
    if order > most or slot & ((1 << order) - 1):
        return False
    for member in range(slot, slot + (1 << order)):
        if state.frames[member].kind != FRAME_USED and state.frames[member].kind != FRAME_DEFERRED:
            return False
    file = state.files[frame.owner]
    return bool(state.policies[file.policy].movable and (frame.busy == 0 or file.kind != KIND_ANON))


@jit
def largest_folio(state: State) -> int:
    """The largest order that is worth moving (`skip_isolation_on_order`)."""
    order = int(state.control[0].order)
    return BLOCK_ORDER - 1 if order < 0 else min(order, BLOCK_ORDER) - 1


# -- where to look ----------------------------------------------------------------------------------------------------------


@jit
def reinit_migrate_pfn(state: State) -> int:
    """Go on from the lowest frame that searches found, once; else from where the scanner stands."""
    control = state.control[0]
    if control.fast_start > 0:
        control.migrate = int(control.fast_start)
        control.fast_start = -1
    return int(control.migrate)


@jit
def search_sources(state: State, zone: int, high: int, limit: int) -> int:
    """The free chunk of order 3 or more that lies below `high` in a block without a hint; 0 if the search finds none.

    Chunks that were looked at go to the end of their list.
    """
    scanned = 0
    for order in range(int(state.control[0].order) - 1, COSTLY_ORDER - 1, -1):
        if scanned >= limit:
            break
        row = list_index(zone, MOVABLE, order)
        slot = int(state.free_lists[row].head)
        while slot:
            scanned += 1
            if scanned > limit:
                end_list_at(state, row, slot)
                break
            pfn = pfn_of(state, slot)
            if pfn < high and state.skip[pfn >> BLOCK_ORDER] == 0:
                end_list_at(state, row, slot)
                state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED] += scanned
                return pfn
            slot = int(state.frames[slot].next)
    state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED] += scanned
    return 0


@jit
def fast_find_migrateblock(state: State, zone: int) -> int:
    """Where to scan: the start of a block in which much is free already, for a large chunk; else where the scanner stands.

    Such a block is searched in the first half of what lies between the scanners, later in its first eighth.
    """
    control = state.control[0]
    pfn = int(control.migrate)
    if control.ignore_skip_hint or control.finish_pageblock or pfn & (BLOCK_PAGES - 1) or control.order <= COSTLY_ORDER:
        return pfn
    if control.direct and control.migratetype != MOVABLE:
        return pfn
    distance = int(control.free - pfn) >> 1
    if pfn != state.zones[zone].start << BLOCK_ORDER:
        distance >>= 2
    high = (pfn + distance) & ~(BLOCK_PAGES - 1)
    found = search_sources(state, zone, high, (CLUSTER >> min(int(control.fast_search_fail), CLUSTER)) + 1)
    if found == 0:
        control.fast_search_fail += 1
        return reinit_migrate_pfn(state)
    if control.fast_start >= 0:
        control.fast_start = min(int(control.fast_start), found) if control.fast_start else found
    control.fast_search_fail = 0
    return found & ~(BLOCK_PAGES - 1)


@jit
def is_suitable_source(state: State, block: int) -> bool:
    """Whether a block may be scanned (`suitable_migration_source`): no huge page; for an allocation's first try, of its type.

    For movable memory that is CMA, too.
    """
    control = state.control[0]
    if skip_persistent(state, block):
        return False
    if control.mode != ASYNC or control.direct == 0:
        return True
    migratetype = int(state.blocks[block].migratetype)
    if control.migratetype == MOVABLE:
        return migratetype == MOVABLE or migratetype == CMA
    return bool(migratetype == control.migratetype)


@part
def isolate_sources(state: State, zone: int) -> None:
    """Find the next block that may be scanned, below the target scanner, and isolate folios there (`isolate_migratepages`)."""
    control = state.control[0]
    control.nr_folios = 0
    control.nr_migrate = 0
    low = fast_find_migrateblock(state, zone)
    found = low != control.migrate and control.fast_search_fail == 0
    end = ((low >> BLOCK_ORDER) + 1) << BLOCK_ORDER
    while end <= control.free:
        block = low >> BLOCK_ORDER
        if state.blocks[block].kind != layout.HOLE:
            fresh = low & (BLOCK_PAGES - 1) == 0
            if not fresh or found or isolation_suitable(state, block):
                if is_suitable_source(state, block):
                    isolate_from(state, zone, low, end)
                    return
                update_cached_migrate(state, zone, end)
        found = False
        control.migrate = end
        low = end
        end += BLOCK_PAGES


# -- what is isolated -------------------------------------------------------------------------------------------------------


@jit
def has_sources(state: State, block: int) -> bool:
    """Whether a block holds anything movable. A uniform one is opened."""
    record = state.blocks[block]
    if record.kind == UNIFORM and state.policies[state.files[record.owner].policy].movable:
        open_block(state, block)
    return bool(record.kind == SPLIT and record.nr_movable > 0)


@jit
def isolate_cluster(state: State, block: int, offset: int) -> int:
    """Isolate the next cluster of a block's folios, from frame `offset` on. Returns where it ends."""
    control = state.control[0]
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    most = largest_folio(state)
    gives_up = bool(control.direct and control.mode == ASYNC)
    place = 1 << int(control.order) if gives_up else BLOCK_PAGES
    border = (offset // place + 1) * place
    while offset < BLOCK_PAGES and (control.nr_migrate < CLUSTER or control.finish_pageblock):
        if offset >= border:
            if control.nr_migrate:
                break
            border = (offset // place + 1) * place
        frame = state.frames[base + offset]
        size = 1
        if frame.kind != FRAME_TAIL and (offset & ((1 << int(frame.order)) - 1)) == 0:
            size = 1 << int(frame.order)
        if is_isolated(state, base + offset, most):
            state.migratepages[control.nr_folios] = (block << BLOCK_ORDER) + offset
            control.nr_folios += 1
            control.nr_migrate += size
        elif gives_up and frame.kind != FRAME_FREE:
            size = max(size, border - offset)
            control.nr_folios = 0
            control.nr_migrate = 0
        offset += size
    return min(offset, BLOCK_PAGES)


@jit
def isolate_from(state: State, zone: int, low: int, end: int) -> None:
    """Isolate folios of a block from frame `low` on (`isolate_migratepages_block`)."""
    control = state.control[0]
    block = low >> BLOCK_ORDER
    fresh = low & (BLOCK_PAGES - 1) == 0
    control.migrate = end
    if fresh and not isolation_suitable(state, block):
        fresh = False
    else:
        if has_sources(state, block):
            control.migrate = (block << BLOCK_ORDER) + isolate_cluster(state, block, low & (BLOCK_PAGES - 1))
        state.tally[layout.TALLY_COMPACT_MIGRATE_SCANNED] += control.migrate - low
    if fresh and (control.nr_migrate == 0 or control.ignore_skip_hint == 0):
        state.skip[block] = 1
    if control.migrate == end and (control.nr_migrate == 0 or control.finish_pageblock):
        update_cached_migrate(state, zone, end)


# -- what is moved ----------------------------------------------------------------------------------------------------------


@jit
def put_pages(state: State, pfn: int, order: int) -> None:
    """Isolate the pages of a folio that was split, instead of the folio: of anonymous memory those that were not zeros."""
    control = state.control[0]
    for page in range(pfn, pfn + (1 << order)):
        if state.frames[slot_of(state, page)].kind == FRAME_USED:
            state.migratepages[control.nr_folios] = page
            control.nr_folios += 1


@part
def move_isolated(state: State, zone: int) -> int:
    """Move the folios that are isolated, the last first (`migrate_pages`).

    Returns how many stayed as they are held, or NO_TARGET. A folio that is mapped in part, or for which there is no target of
    its size, is split, so that its pages move one by one (`try_split_folio`).
    """
    control = state.control[0]
    held = 0
    while control.nr_folios:
        control.nr_folios -= 1
        pfn = int(state.migratepages[control.nr_folios])
        slot = slot_of(state, pfn)
        order = int(state.frames[slot].order)
        if state.frames[slot].busy:
            control.nr_migrate -= 1 << order
            state.tally[layout.TALLY_COMPACT_FAILED] += 1 << order
            held += 1
            continue
        target = 0 if is_mapped_in_part(state, pfn, order) else find_target(state, zone, order)
        if target:
            move_frames(state, pfn, target)
            free_pages(state, pfn, order)
        elif order:
            split_source(state, pfn, order)
            put_pages(state, pfn, order)
        else:
            state.tally[layout.TALLY_COMPACT_FAILED] += 1  # the others were not tried (`migrate_pages_batch`, ENOMEM)
            return NO_TARGET
    return held
