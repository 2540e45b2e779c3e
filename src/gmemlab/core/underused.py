"""How folios are split whose pages are in part unmapped or zeros, so that these are freed (L16, L17, T4).

Pages that are zeros map the kernel's page of zeros after a split, and their frames are freed
(`try_to_map_unused_to_zeropage`); here they are absent: of sizes between 4 KiB and 2 MiB, which Linux gives to empty page
table entries only, a policy may then get one where Linux gives a base page. A pinned folio cannot be split.
"""

from gmemlab.core import decisions, layout
from gmemlab.core.frames import folio_busy, folio_head, folio_order, free_folio, leave_folio, open_whole, own_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_PUNCH,
    FRAME_USED,
    FRESH,
    PAGE_TABLE,
    TALLY_PRESENT,
    UNIFORM,
    UNSEEN,
    WHOLE,
    ZEROED,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, open_details, remove_pages, settle
from gmemlab.core.page_details import content_at
from gmemlab.core.parts import part
from gmemlab.core.split_queue import SHIFT, dequeue_split, dequeue_whole, is_partial
from gmemlab.core.state import State


@part
def split_to_pages(state: State, file: int, index: int, pfn: int) -> None:
    """Split the idle folio behind page `index`, frame `pfn`, into base pages; those not mapped, and zeros, are freed."""
    row = block_row(state, file, index)
    order = folio_order(state, pfn)
    head = folio_head(pfn, order)
    first = folio_head(index, order)
    block = pfn >> BLOCK_ORDER
    details = open_details(state, row) + (first & (BLOCK_PAGES - 1))
    state.file_blocks[row].marks = (state.file_blocks[row].marks | PAGE_TABLE) & ~UNSEEN
    if state.blocks[block].kind == WHOLE:
        dequeue_whole(state, block)
        open_whole(state, block, file, first)
        state.blocks[block].deferred = 0
        state.tally[layout.TALLY_SPLIT_2M + CAUSE_PUNCH] += 1
    elif order >= SHIFT and is_partial(state, slot_of(state, head), order):
        dequeue_split(state, head)
    slot = slot_of(state, head)
    for offset in range(1 << order):
        state.frames[slot + offset].order = 0
        if frame_of(state, row, first + offset) == head + offset:
            state.tally[TALLY_PRESENT + order] -= 1
            if content_at(state, details + offset) == FRESH:
                place = (first + offset) & (BLOCK_PAGES - 1)
                remove_pages(state, row, place, place + 1)
                state.tally[layout.TALLY_DEFERRED] += 1
            else:
                state.frames[slot + offset].kind = FRAME_USED
                state.tally[TALLY_PRESENT] += 1
    for offset in range(1 << order):
        if frame_of(state, row, first + offset) != head + offset:
            state.tally[layout.TALLY_DEFERRED] -= 1
            state.tally[layout.TALLY_RELEASED] += 1
            free_folio(state, head + offset, 0)


@jit
def is_underused(state: State, row: int, pfn: int, max_none: int) -> bool:
    """Whether more than `max_none` pages of a huge page, mapped as a whole, are zeros (`thp_underused`).

    Looks once only: it is not on the queue then, whatever comes of it. `pfn` is its first frame.
    """
    block = state.file_blocks[row]
    unseen = block.marks & UNSEEN
    block.marks &= ~UNSEEN
    if unseen == 0:
        return False
    dequeue_whole(state, pfn >> BLOCK_ORDER)
    if block.detail == 0:
        return decisions.is_underused(BLOCK_PAGES if block.content == FRESH else 0, max_none)
    base = int(block.detail) * BLOCK_PAGES
    zeros = 0
    for offset in range(BLOCK_PAGES):
        if content_at(state, base + offset) == FRESH:
            zeros += 1
    return decisions.is_underused(zeros, max_none)


@jit
def split_unless_held(state: State, file: int, index: int, pfn: int, underused: bool) -> bool:
    """Split the folio behind page `index`, frame `pfn`, unless it is pinned or referenced. Whether it was."""
    if folio_busy(state, pfn):
        state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
        return False
    split_to_pages(state, file, index, pfn)
    state.tally[layout.TALLY_UNDERUSED] += 1 if underused else 0
    return True


@part
def split_zeros(state: State, file: int, base: int) -> bool:
    """Split the huge page of shmem at page `base`, unless it is held, and free its pages of zeros (T4). Whether it was."""
    row = block_row(state, file, base)
    block = int(state.file_blocks[row].block)
    if folio_busy(state, block << BLOCK_ORDER):
        state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
        return False
    details = open_details(state, row)
    dequeue_whole(state, block)
    own_block(state, block, UNIFORM, 0, file, base >> BLOCK_ORDER)
    state.tally[layout.TALLY_SPLIT_2M + CAUSE_PUNCH] += 1
    state.tally[TALLY_PRESENT + BLOCK_ORDER] -= BLOCK_PAGES
    state.tally[TALLY_PRESENT] += BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        if content_at(state, details + offset) == ZEROED:
            pfn = frame_of(state, row, offset)
            remove_pages(state, row, offset, offset + 1)
            state.tally[TALLY_PRESENT] -= 1
            leave_folio(state, pfn, 0)
    state.tally[layout.TALLY_UNDERUSED] += 1
    settle(state, file, base)
    return True
