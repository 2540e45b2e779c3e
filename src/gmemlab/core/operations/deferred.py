"""Anonymous folios of which a part was given back: split when they are looked at again (L16).

Their unmapped frames stay with the folio until it is split: by the deferred-split shrinker, under memory pressure, or by
MADV_FREE on a part of it. A pinned folio cannot be split.
"""

import errno

from gmemlab.core import layout
from gmemlab.core.frames import folio_busy, folio_head, folio_order, free_folio, open_whole
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, CAUSE_PUNCH, FRAME_USED, KIND_ANON, PAGE_TABLE, TALLY_PRESENT, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, open_details, settle
from gmemlab.core.operations.checks import check_within
from gmemlab.core.state import State


@jit
def mapped_pages(state: State, row: int, head: int, order: int, first: int, end: int) -> int:
    """How many of the file's pages [first, end) lie in the folio that starts at frame `head`."""
    count = 0
    for index in range(first, end):
        pfn = frame_of(state, row, index)
        if head <= pfn < head + (1 << order):
            count += 1
    return count


@jit
def split_to_pages(state: State, file: int, index: int, pfn: int) -> None:
    """Split the idle folio behind page `index`, frame `pfn`, into base pages; those that are not mapped are freed."""
    row = block_row(state, file, index)
    order = folio_order(state, pfn)
    head = folio_head(pfn, order)
    first = folio_head(index, order)
    block = pfn >> BLOCK_ORDER
    open_details(state, row)
    state.file_blocks[row].marks |= PAGE_TABLE
    if state.blocks[block].kind == WHOLE:
        open_whole(state, block, file, first)
        state.blocks[block].deferred = 0
        state.file_blocks[row].block = 0
        state.tally[layout.TALLY_SPLIT_2M + CAUSE_PUNCH] += 1
    slot = slot_of(state, head)
    for offset in range(1 << order):
        state.frames[slot + offset].order = 0
        if frame_of(state, row, first + offset) == head + offset:
            state.frames[slot + offset].kind = FRAME_USED
            state.tally[TALLY_PRESENT + order] -= 1
            state.tally[TALLY_PRESENT] += 1
    for offset in range(1 << order):
        if frame_of(state, row, first + offset) != head + offset:
            state.tally[layout.TALLY_DEFERRED] -= 1
            free_folio(state, head + offset, 0)


@jit
def split_parts(state: State, file: int, begin: int, end: int, by_range: bool) -> None:
    """Split folios behind pages [begin, end) of one block: those covered in part, or (not `by_range`) mapped in part."""
    row = block_row(state, file, begin)
    base = begin & ~(BLOCK_PAGES - 1)
    stop = min(base + BLOCK_PAGES, int(state.files[file].pages))
    index = begin
    while index < end:
        pfn = frame_of(state, row, index)
        order = folio_order(state, pfn) if pfn else 0
        if order == 0:
            index += 1
            continue
        head = folio_head(pfn, order)
        after = folio_head(index, order) + (1 << order)
        seen = mapped_pages(state, row, head, order, begin if by_range else base, end if by_range else stop)
        if seen < 1 << order:
            if folio_busy(state, pfn):
                state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
            else:
                split_to_pages(state, file, index, pfn)
        index = after
    settle(state, file, begin)


@jit
def split_each_block(state: State, file: int, first: int, end: int, by_range: bool) -> None:
    """`split_parts` for every block of [first, end)."""
    index = first
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        split_parts(state, file, index, stop, by_range)
        index = stop


@jit
def free_lazily(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """MADV_FREE: folios that the range covers in part are split at once; contents stay until the kernel wants the memory."""
    if state.files[file].kind != KIND_ANON:
        return errno.EINVAL, 0
    error = check_within(state, file, first, count, 1)
    if error:
        return error, 0
    split_each_block(state, file, first, first + count, True)
    return 0, count


@jit
def split_deferred(state: State, file: int) -> tuple[int, int]:
    """What the deferred-split shrinker does to one file: its partly unmapped folios are split, and their rest is freed."""
    if state.files[file].kind != KIND_ANON:
        return errno.EOPNOTSUPP, 0
    pages = int(state.files[file].pages)
    split_each_block(state, file, 0, pages, False)
    return 0, pages
