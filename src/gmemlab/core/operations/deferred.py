"""Anonymous folios of which a part was given back, or never written: split when they are looked at again (L16, L17).

Unmapped frames stay with the folio until it is split: by the deferred-split shrinker, under memory pressure, or by MADV_FREE
on a part of it. The shrinker also splits, the one time that it looks at them, whole huge pages that are mostly zeros
(`thp_underused`). Pages that are zeros map the kernel's page of zeros after a split, and their frames are freed
(`try_to_map_unused_to_zeropage`); here they are absent: of sizes between 4 KiB and 2 MiB, which Linux gives to empty page
table entries only, a policy may then get one where Linux gives a base page. A pinned folio cannot be split.

A policy may have the shrinker look for zeros in shmem, too (T4): what a punch could not free because the folio was held, and
the holes that a collapse filled. No kernel does; Linux mends neither before the whole huge page is punched (L14).
"""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.frames import folio_busy, folio_head, folio_order, free_folio, open_whole
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_PUNCH,
    FRAME_USED,
    FRESH,
    KIND_ANON,
    PAGE_TABLE,
    TALLY_PRESENT,
    UNSEEN,
    WHOLE,
    ZEROED,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, open_details, remove_page, settle
from gmemlab.core.operations.checks import check_within
from gmemlab.core.operations.punch import drop_folio
from gmemlab.core.operations.split import split_folio
from gmemlab.core.page_details import frame_at
from gmemlab.core.parts import part
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
        open_whole(state, block, file, first)
        state.blocks[block].deferred = 0
        state.file_blocks[row].block = 0
        state.tally[layout.TALLY_SPLIT_2M + CAUSE_PUNCH] += 1
    slot = slot_of(state, head)
    for offset in range(1 << order):
        state.frames[slot + offset].order = 0
        if frame_of(state, row, first + offset) == head + offset:
            state.tally[TALLY_PRESENT + order] -= 1
            if state.pages[details + offset].content == FRESH:
                remove_page(state, row, (first + offset) & (BLOCK_PAGES - 1))
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
def is_underused(state: State, row: int, max_none: int) -> bool:
    """Whether more than `max_none` pages of a huge page, mapped as a whole, are zeros (`thp_underused`). Looks once only."""
    block = state.file_blocks[row]
    unseen = block.marks & UNSEEN
    block.marks &= ~UNSEEN
    if unseen == 0:
        return False
    if block.detail == 0:
        return decisions.is_underused(BLOCK_PAGES if block.content == FRESH else 0, max_none)
    base = int(block.detail) * BLOCK_PAGES
    zeros = 0
    for offset in range(BLOCK_PAGES):
        if state.pages[base + offset].content == FRESH:
            zeros += 1
    return decisions.is_underused(zeros, max_none)


@jit
def split_parts(state: State, file: int, begin: int, end: int, by_range: bool, max_none: int) -> None:
    """Split folios behind pages [begin, end) of one block.

    With `by_range`, those covered in part; else those mapped in part, and those with more than `max_none` pages of zeros.
    """
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
        underused = not by_range and order == BLOCK_ORDER and seen == BLOCK_PAGES and is_underused(state, row, max_none)
        if seen < 1 << order or underused:
            if folio_busy(state, pfn):
                state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
            else:
                split_to_pages(state, file, index, pfn)
                state.tally[layout.TALLY_UNDERUSED] += 1 if underused else 0
        index = after
    settle(state, file, begin)


@part
def split_each_block(state: State, file: int, first: int, end: int, by_range: bool, max_none: int) -> None:
    """`split_parts` for every block of [first, end)."""
    index = first
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        split_parts(state, file, index, stop, by_range, max_none)
        index = stop


@part
def split_zeros(state: State, file: int, max_none: int) -> None:
    """Split every idle huge page of shmem with more than `max_none` pages of zeros, and free these; looks each time."""
    for base in range(0, int(state.files[file].pages) & ~(BLOCK_PAGES - 1), BLOCK_PAGES):
        row = block_row(state, file, base)
        block = state.file_blocks[row]
        if block.block == 0 or state.blocks[block.block].kind != WHOLE:
            continue
        if not decisions.is_underused(int(block.nr_stranded), max_none):
            continue
        if folio_busy(state, int(block.block) << BLOCK_ORDER):
            state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
            continue
        details = open_details(state, row)
        split_folio(state, file, base, base, base + BLOCK_PAGES, CAUSE_PUNCH)
        for offset in range(BLOCK_PAGES):
            if state.pages[details + offset].content == ZEROED:
                drop_folio(state, file, base + offset, 0, frame_at(state, details + offset))
        state.tally[layout.TALLY_UNDERUSED] += 1
        settle(state, file, base)


@jit
def free_lazily(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """MADV_FREE: folios that the range covers in part are split at once; contents stay until the kernel wants the memory."""
    if state.files[file].kind != KIND_ANON:
        return errno.EINVAL, 0
    error = check_within(state, file, first, count, 1)
    if error:
        return error, 0
    split_each_block(state, file, first, first + count, True, 0)
    return 0, count


@jit
def split_deferred(state: State, file: int, max_none: int) -> tuple[int, int]:
    """What the deferred-split shrinker does to one file: its partly unmapped folios are split, and their rest is freed.

    Huge pages that it sees for the first time, too, if more than `max_none` (max_ptes_none) of their pages are zeros. EINVAL
    where that is none of 0 to 511. EOPNOTSUPP for memory in which the shrinker does not look.
    """
    if max_none < 0 or max_none >= BLOCK_PAGES:
        return errno.EINVAL, 0
    record = state.files[file]
    pages = int(record.pages)
    if not decisions.looks_for_zeros(state.policies[record.policy], int(record.kind)):
        return errno.EOPNOTSUPP, 0
    if record.kind == KIND_ANON:
        split_each_block(state, file, 0, pages, False, max_none)
    else:
        split_zeros(state, file, max_none)
    return 0, pages
