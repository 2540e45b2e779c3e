"""Anonymous folios of which a part was given back, or never written: split when they are looked at again (L16, L17).

Unmapped frames stay with the folio until it is split: by the deferred-split shrinker, under memory pressure, or by MADV_FREE
on a part of it. The shrinker also splits, the one time that it looks at them, whole huge pages that are mostly zeros
(`thp_underused`). `daemons.shrinker` is what reclaim has run by itself; here it is done to one file, because somebody asks.

A policy may have the shrinker look for zeros in shmem, too (T4): what a punch could not free because the folio was held, and
the holes that a collapse filled. No kernel does; Linux mends neither before the whole huge page is punched (L14).
"""

import errno

from gmemlab.core import decisions
from gmemlab.core.frames import folio_head, folio_order
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, KIND_ANON, WHOLE
from gmemlab.core.mapping import block_row, frame_of, settle
from gmemlab.core.operations.checks import check_within
from gmemlab.core.parts import part
from gmemlab.core.state import State
from gmemlab.core.underused import is_underused, split_unless_held, split_zeros


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
        head = folio_head(pfn, order)
        if order == 0 or mapped_pages(state, row, head, order, begin, index):
            index += 1
            continue
        after = folio_head(index, order) + (1 << order)
        seen = mapped_pages(state, row, head, order, begin if by_range else base, end if by_range else stop)
        underused = not by_range and order == BLOCK_ORDER and seen == BLOCK_PAGES and is_underused(state, row, pfn, max_none)
        if seen < 1 << order or underused:
            split_unless_held(state, file, index, pfn, underused)
            after = index + 1  # other folios may lie in its holes
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


@jit
def split_all_zeros(state: State, file: int, max_none: int) -> None:
    """Split every idle huge page of shmem with more than `max_none` pages of zeros, and free these; looks each time."""
    for base in range(0, int(state.files[file].pages) & ~(BLOCK_PAGES - 1), BLOCK_PAGES):
        block = state.file_blocks[block_row(state, file, base)]
        if block.block and state.blocks[block.block].kind == WHOLE and decisions.is_underused(int(block.nr_stranded), max_none):
            split_zeros(state, file, base)


@jit
def free_lazily(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """MADV_FREE: folios that the range covers in part are split at once; contents stay.

    In Linux until reclaim drops them, which is not modelled (`daemons.reclaim`).
    """
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
        split_all_zeros(state, file, max_none)
    return 0, pages
