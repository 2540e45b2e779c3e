"""Long-term pins (FOLL_LONGTERM): what they hold may lie neither in CMA nor in ZONE_MOVABLE, and moves first (mm/gup.c, 6.18).

Of what is in the way of a move, Linux says so at once or after some tries; here all of it is ENOMEM, as a pin's caller sees.
Not modelled: huge pages of hugetlb memory that would move within their pool (EOPNOTSUPP where one lies there); and that such
a pin would take other pages of a pool than these.
"""

import errno

from gmemlab.core import layout
from gmemlab.core.daemons.register import note_cache
from gmemlab.core.effort import alloc_trying
from gmemlab.core.frames import add_busy, folio_busy, folio_head, folio_order, own_block
from gmemlab.core.hardware.moves import part_huge
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    GFP_DIRECT,
    GFP_KSWAPD,
    ISOLATE,
    KIND_ANON,
    KIND_HUGETLB,
    SOURCE_POOL,
    UNMOVABLE,
    WHOLE,
    ZONE_MOVABLE,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of
from gmemlab.core.migrate import move_backing, move_frames, split_source
from gmemlab.core.nodes import node_of
from gmemlab.core.operations.deferred import mapped_pages
from gmemlab.core.operations.split import split_block
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.split_queue import dequeue_whole, enqueue_whole
from gmemlab.core.state import State
from gmemlab.core.underused import split_to_pages


@jit
def is_longterm_pinnable(state: State, pfn: int) -> bool:
    """Whether a frame may be pinned for long (`folio_is_longterm_pinnable`)."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    if record.migratetype == CMA or record.migratetype == ISOLATE:
        return False
    return bool(state.zones[int(record.zone)].kind != ZONE_MOVABLE)


@jit
def alloc_target(state: State, pfn: int, order: int) -> int:
    """Where a folio shall move to (`alloc_migration_target`): GFP_USER, or for larger ones GFP_TRANSHUGE; on its node first.

    Of neither anything is movable during such a pin. The folio is isolated meanwhile. Returns the first frame, or 0.
    """
    add_busy(state, pfn, 1)
    gfp = GFP_DIRECT if order else GFP_KSWAPD | GFP_DIRECT
    target = alloc_trying(state, order, UNMOVABLE, gfp, node_of(state, pfn >> BLOCK_ORDER), 0)
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
        split_block(state, file, index, layout.CAUSE_POPULATE)
        part_huge(state, file, index)


@jit
def is_mapped_in_part(state: State, file: int, index: int, pfn: int, order: int) -> bool:
    """Whether parts of an anonymous folio were unmapped: it is split before it moves (`migrate_pages_batch`)."""
    if state.files[file].kind != KIND_ANON or order == 0:
        return False
    base = index & ~(BLOCK_PAGES - 1)
    stop = min(base + BLOCK_PAGES, int(state.files[file].pages))
    return mapped_pages(state, block_row(state, file, index), folio_head(pfn, order), order, base, stop) < 1 << order


@jit
def may_leave(state: State, file: int, pfn: int) -> int:
    """Whether the folio of a frame may move at all. Returns 0, ENOMEM, or EOPNOTSUPP where the model cannot.

    guest_memfd refuses (G54), also where its pages come from a pool; so does what somebody else holds.
    """
    policy = state.policies[state.files[file].policy]
    if policy.source == SOURCE_POOL and state.files[file].kind == KIND_HUGETLB:
        return errno.EOPNOTSUPP
    return 0 if policy.movable and folio_busy(state, pfn) == 0 else errno.ENOMEM


@part
def leave_movable(state: State, file: int, first: int, end: int) -> tuple[int, int]:
    """Move the folios of [first, end) that may not be pinned where they are (`check_and_migrate_movable_pages`).

    A folio that finds no room as it is moves in pieces, all of it. Returns (errno, folios that were in the wrong place): the
    first that cannot move ends it, and what has moved before stays where it is.
    """
    found = 0
    index = first
    while index < end:
        pfn = frame_of(state, block_row(state, file, index), index)
        if pfn == 0 or is_longterm_pinnable(state, pfn):
            index += 1
            continue
        found += 1
        error = may_leave(state, file, pfn)
        if error:
            return error, found
        order = folio_order(state, pfn)
        base = folio_head(index, order)
        target = 0 if is_mapped_in_part(state, file, index, pfn, order) else alloc_target(state, pfn, order)
        if target:
            move_folio(state, folio_head(pfn, order), order, target)
            index = base + (1 << order)
        elif order:
            split_around(state, file, index, pfn, order)
            index = base
            end = max(end, base + (1 << order))
        else:
            return errno.ENOMEM, found
    return 0, found
