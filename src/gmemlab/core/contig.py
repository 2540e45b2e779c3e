"""A run of 512 blocks for a 1 GiB page: one that is free, or from which all that is there can be moved (`alloc_contig_pages`).

As in 6.18: one frame that cannot move anywhere in it defeats a run (K21): unmovable, pinned, of a folio that is mapped in
part, or a huge page of a pool (7.3 tries a second time, and moves those of 2 MiB); and so does a CMA block, which is for
`cma_alloc` alone, or one that somebody else has isolated (`has_unmovable_pages`, `set_migratetype_isolate`). While a run is
emptied, its blocks are isolated.
"""

from gmemlab.core import layout
from gmemlab.core.daemons.register import note_cache
from gmemlab.core.frames import open_block, own_block
from gmemlab.core.hardware.moves import part_huge
from gmemlab.core.isolation import isolate_block, release_block, take_isolated_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    FRAME_DEFERRED,
    FRAME_USED,
    FREE,
    GIGA_BLOCKS,
    GIGA_ORDER,
    KIND_ANON,
    MOVABLE,
    PCP,
    RESERVED,
    SPLIT,
    UNIFORM,
    UNMOVABLE,
    WHOLE,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row
from gmemlab.core.migrate import move_backing, move_frames, split_source
from gmemlab.core.nodes import alloc_near, may_serve, node_of, zone_at
from gmemlab.core.operations.split import split_block
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.pcp import drain_zone, kept_in_block
from gmemlab.core.split_queue import dequeue_whole, enqueue_whole
from gmemlab.core.state import State
from gmemlab.core.underused import split_to_pages


@jit
def run_is_free(state: State, first: int) -> bool:
    """Whether the 512 blocks from `first` on are all free, and none is kept for others."""
    for block in range(first, first + GIGA_BLOCKS):
        if state.blocks[block].kind != FREE or state.blocks[block].migratetype >= CMA:
            return False
    return True


@jit
def is_emptiable(state: State, block: int) -> bool:
    """Whether all frames of a block are free, or of idle, movable folios that are mapped as a whole."""
    record = state.blocks[block]
    if record.migratetype >= CMA:
        return False
    if record.kind == FREE:
        return True
    if record.kind == UNIFORM or record.kind == WHOLE:
        idle = record.kind == UNIFORM or (record.busy == 0 and record.deferred == 0)
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
    """Whether no frame of a split block is pinned, and none belongs to a folio that is mapped in part."""
    for slot in range(base, base + BLOCK_PAGES):
        if state.frames[slot].busy or state.frames[slot].kind == FRAME_DEFERRED:
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
def move_whole(state: State, block: int) -> None:
    """Move a folio of order 9 out of a block; where no other block is to be had, it becomes base pages here.

    Where it was on the queue of the deferred-split shrinker it comes there again, last (`migrate_folio_move`).
    """
    record = state.blocks[block]
    owner, index = int(record.owner), int(record.index)
    target = alloc_near(state, BLOCK_ORDER, MOVABLE, node_of(state, block), 0) >> BLOCK_ORDER
    if target == 0:
        if state.files[owner].kind == KIND_ANON:
            split_to_pages(state, owner, index << BLOCK_ORDER, block << BLOCK_ORDER)
        else:
            dequeue_whole(state, block)
            split_block(state, owner, index << BLOCK_ORDER, layout.CAUSE_POPULATE)  # its pages leave one by one from here on
            part_huge(state, owner, index << BLOCK_ORDER)
        return
    own_block(state, target, WHOLE, BLOCK_ORDER, owner, index)
    if record.next:
        dequeue_whole(state, block)
        enqueue_whole(state, target)
    move_backing(state, block_row(state, owner, index << BLOCK_ORDER), block, target)
    free_pages(state, block << BLOCK_ORDER, BLOCK_ORDER)


@jit
def move_small(state: State, block: int) -> bool:
    """Move all folios below order 9 out of a split block, ascending. False where no frames are to be had for one."""
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    offset = 0
    while offset < BLOCK_PAGES and state.blocks[block].kind == SPLIT:  # else all of it is free by now
        frame = state.frames[base + offset]
        order = int(frame.order)
        pfn = (block << BLOCK_ORDER) + offset
        if frame.kind != FRAME_USED:
            offset += 1
            continue
        target = alloc_near(state, order, MOVABLE, node_of(state, block), 0)
        if target:
            note_cache(state, int(frame.owner))  # which may come to another node
            move_frames(state, pfn, slot_of(state, target))
            free_pages(state, pfn, order)
            offset += 1 << order
        elif order:
            split_source(state, pfn, order)
        else:
            return False
    return True


@jit
def empty_block(state: State, block: int) -> bool:
    """Move everything out of a block, so that all of it is free. False where memory is short."""
    if state.blocks[block].kind == WHOLE:
        move_whole(state, block)
    if state.blocks[block].kind == UNIFORM:
        open_block(state, block)
    return bool(state.blocks[block].kind != SPLIT or move_small(state, block))


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
    (`hugepage_movable_supported`; a setting came later, 9e80e66ddaf7). A zone that would fall below its reserve gives none,
    which Linux does not ask for what is free already.
    """
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        record = state.zones[zone]
        if not may_serve(state, zone, UNMOVABLE, allowed) or record.free - (1 << GIGA_ORDER) < record.reserve:
            continue
        first = (int(record.start) + GIGA_BLOCKS - 1) & ~(GIGA_BLOCKS - 1)
        while first + GIGA_BLOCKS <= record.end:
            if run_is_emptiable(state, first) and take_run(state, zone, first):
                return first
            first += GIGA_BLOCKS
    return 0
