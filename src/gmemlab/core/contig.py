"""A run of 512 blocks for a 1 GiB page: one that is free, or from which all that is there can be moved (`alloc_contig_pages`).

As in 6.18: one frame that cannot move anywhere in it defeats a run (K21): unmovable, pinned, or of a huge page of a pool
(7.3 tries a second time, and moves those of 2 MiB); and so does a CMA block, which is for `cma_alloc` alone, or one that
somebody else has isolated (`has_unmovable_pages`, `set_migratetype_isolate`). While a run is emptied, its blocks are isolated.
"""

from gmemlab.core.daemons.reclaim import drop_cached
from gmemlab.core.frames import open_block, own_block
from gmemlab.core.isolation import isolate_block, release_block, take_isolated_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_DEFERRED,
    FRAME_USED,
    FREE,
    GFP_DIRECT,
    GFP_KSWAPD,
    GFP_RETRY_MAYFAIL,
    GIGA_BLOCKS,
    KIND_CACHE,
    MOVABLE,
    PCP,
    RESERVED,
    SPLIT,
    UNIFORM,
    UNMOVABLE,
    WHOLE,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.migrate_pages import MOVED, STAYED, leave_frames
from gmemlab.core.nodes import may_serve, zone_at
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_zone, kept_in_block
from gmemlab.core.state import State

GFP_CONTIG = GFP_KSWAPD | GFP_DIRECT | GFP_RETRY_MAYFAIL  # of what is moved (`__alloc_contig_verify_gfp_mask`)


@jit
def run_is_free(state: State, first: int) -> bool:
    """Whether the 512 blocks from `first` on are all free, and none is kept for others."""
    for block in range(first, first + GIGA_BLOCKS):
        if state.blocks[block].kind != FREE or state.blocks[block].migratetype >= CMA:
            return False
    return True


@jit
def is_emptiable(state: State, block: int) -> bool:
    """Whether all frames of a block are free, or of idle, movable folios."""
    record = state.blocks[block]
    if record.migratetype >= CMA:
        return False
    if record.kind == FREE:
        return True
    if record.kind == UNIFORM or record.kind == WHOLE:
        idle = record.kind == UNIFORM or record.busy == 0
        return bool(idle and state.policies[state.files[record.owner].policy].movable)
    if record.kind == PCP:
        return True
    if record.kind != SPLIT:
        return False
    clean = int(record.nr_free) + int(record.nr_movable)
    if clean < BLOCK_PAGES and state.host[0].nr_cpus:
        clean += kept_in_block(state, block)
    return clean == BLOCK_PAGES and is_idle(state, int(record.detail) * BLOCK_PAGES)


@jit
def is_idle(state: State, base: int) -> bool:
    """Whether no frame of a split block is pinned."""
    for slot in range(base, base + BLOCK_PAGES):
        if state.frames[slot].busy:
            return False
    return True


@jit
def run_is_emptiable(state: State, first: int) -> bool:
    """Whether all blocks of a run are free, or can be emptied.

    Linux knows before only of what is unmovable. It isolates the run and moves folios until it meets one that is held, which
    stays; here nothing moves then.
    """
    for block in range(first, first + GIGA_BLOCKS):
        if not is_emptiable(state, block):
            return False
    return True


@jit
def empty_block(state: State, block: int) -> bool:
    """Have everything leave a block, ascending, so that all of it is free. False where memory is short.

    Clean page cache is dropped, other folios move (`__alloc_contig_migrate_range`).
    """
    pfn, end = block << BLOCK_ORDER, (block + 1) << BLOCK_ORDER
    while pfn < end:
        record = state.blocks[block]
        if record.kind == UNIFORM:
            open_block(state, block)
        if record.kind == WHOLE:
            owner, index, order = int(record.owner), int(record.index) << BLOCK_ORDER, BLOCK_ORDER
        elif record.kind == SPLIT:
            frame = state.frames[slot_of(state, pfn)]
            if frame.kind != FRAME_USED and frame.kind != FRAME_DEFERRED:
                pfn += 1
                continue
            owner, index, order = int(frame.owner), int(frame.index), int(frame.order)
        else:
            return True
        came = MOVED
        if state.files[owner].kind == KIND_CACHE:
            drop_cached(state, owner, index, pfn)
        else:
            came = leave_frames(state, owner, index, pfn, order, MOVABLE, GFP_CONTIG)
        if came == STAYED:
            return False
        if came == MOVED:
            pfn += 1 << order
    return True


@jit
def take_empty(state: State, first: int) -> None:
    """Take a run whose blocks are all isolated and free (`isolate_freepages_range`); they have their types again then."""
    for block in range(first, first + GIGA_BLOCKS):
        if state.blocks[block].order >= BLOCK_ORDER:
            take_isolated_block(state, block)
    for block in range(first, first + GIGA_BLOCKS):
        own_block(state, block, RESERVED, 0, 0, 0)
        release_block(state, block)


@part
def take_run(state: State, zone: int, first: int) -> bool:
    """Empty a run that can be emptied, and take it off the free lists; False where memory is short (`alloc_contig_range`).

    What was free or became so is everybody's again then. The CPUs give back what they keep of the zone before.
    """
    for block in range(first, first + GIGA_BLOCKS):
        isolate_block(state, block)
    drain_zone(state, zone)
    for block in range(first, first + GIGA_BLOCKS):
        if not empty_block(state, block):
            for isolated in range(first, first + GIGA_BLOCKS):
                release_block(state, isolated)
            return False
    take_empty(state, first)
    return True


@part
def alloc_giga(state: State, node: int, allowed: int) -> int:
    """The lowest aligned run of 512 blocks that is free or can be emptied. Returns its first block, or 0.

    Zones in the order in which the node asks them, of allowed nodes; not ZONE_MOVABLE, as pages of 1 GiB do not move
    (`hugepage_movable_supported`; a setting came later, 9e80e66ddaf7). Watermarks are not asked, but for what has to move.
    """
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        record = state.zones[zone]
        if not may_serve(state, zone, UNMOVABLE, allowed):
            continue
        first = (int(record.start) + GIGA_BLOCKS - 1) & ~(GIGA_BLOCKS - 1)
        while first + GIGA_BLOCKS <= record.end:
            if run_is_emptiable(state, first) and take_run(state, zone, first):
                return first
            first += GIGA_BLOCKS
    return 0
