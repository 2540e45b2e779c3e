"""Folios that leave where they are for wherever an allocation finds room (`migrate_pages`, `alloc_migration_target`; 6.18).

For long-term pins, and for runs of which all is to leave. Compaction has targets of its own.
"""

from gmemlab.core import layout
from gmemlab.core.daemons.register import note_cache
from gmemlab.core.effort import alloc_trying
from gmemlab.core.frames import add_busy, folio_head, own_block
from gmemlab.core.hardware.moves import part_huge
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, GFP_KSWAPD, KIND_ANON, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row
from gmemlab.core.migrate import is_mapped_in_part, move_backing, move_frames, split_source
from gmemlab.core.nodes import node_of
from gmemlab.core.operations.split import split_block
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.split_queue import dequeue_whole, enqueue_whole
from gmemlab.core.state import State
from gmemlab.core.underused import split_to_pages

STAYED, PARTED, MOVED = 0, 1, 2  # what came of a folio that was to leave


@jit
def alloc_migration_target(state: State, pfn: int, order: int, migratetype: int, gfp: int) -> int:
    """Where a folio shall move to: on its node first; larger ones as GFP_TRANSHUGE, which does not wake kswapd.

    The folio is isolated meanwhile. Returns the first frame, or 0.
    """
    add_busy(state, pfn, 1)
    flags = gfp & ~GFP_KSWAPD if order else gfp
    target = alloc_trying(state, order, migratetype, flags, node_of(state, pfn >> BLOCK_ORDER), 0)
    add_busy(state, pfn, -1)
    return target


@jit
def move_folio(state: State, pfn: int, order: int, target: int) -> None:
    """Give the folio at `pfn`, of order 9 or less, the frames from `target` on, and its own back.

    Where it was on the queue of the deferred-split shrinker it comes there again, last (`migrate_folio_move`).
    """
    block = pfn >> BLOCK_ORDER
    if order == BLOCK_ORDER:
        owner, index = int(state.blocks[block].owner), int(state.blocks[block].index)
        own_block(state, target >> BLOCK_ORDER, WHOLE, BLOCK_ORDER, owner, index)
        if state.blocks[block].next:
            dequeue_whole(state, block)
            enqueue_whole(state, target >> BLOCK_ORDER)
        move_backing(state, block_row(state, owner, index << BLOCK_ORDER), block, target >> BLOCK_ORDER)
    else:
        note_cache(state, int(state.frames[slot_of(state, pfn)].owner))  # which may come to another node
        move_frames(state, pfn, slot_of(state, target))
    free_pages(state, pfn, order)


@jit
def split_around(state: State, file: int, index: int, pfn: int, order: int) -> None:
    """Split the idle folio around page `index`; zeros of anonymous memory are free then (L17)."""
    if state.files[file].kind == KIND_ANON:
        split_to_pages(state, file, index, pfn)
    elif order < BLOCK_ORDER:
        split_source(state, folio_head(pfn, order), order)
    else:
        dequeue_whole(state, pfn >> BLOCK_ORDER)
        split_block(state, file, index, layout.CAUSE_POPULATE)  # its pages leave one by one from here on
        part_huge(state, file, index)


@jit
def leave_frames(state: State, file: int, index: int, pfn: int, order: int, migratetype: int, gfp: int) -> int:
    """Have the idle folio behind page `index`, frame `pfn`, leave its frames.

    Returns MOVED; PARTED where it is mapped in part or finds no room as it is, and was split, so that its pages may leave one
    by one; or STAYED, where memory is short.
    """
    target = 0
    if order == 0 or not is_mapped_in_part(state, folio_head(pfn, order), order):
        target = alloc_migration_target(state, pfn, order, migratetype, gfp)
    if target:
        move_folio(state, folio_head(pfn, order), order, target)
        return MOVED
    if order:
        split_around(state, file, index, pfn, order)
        return PARTED
    return STAYED
