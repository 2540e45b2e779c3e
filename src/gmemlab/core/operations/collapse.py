"""Making 2 MiB of ordinary memory one folio again: MADV_COLLAPSE (L15, T1)."""

import errno

from gmemlab.core import layout
from gmemlab.core.effort import alloc_folio
from gmemlab.core.frames import folio_busy
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    KIND_ANON,
    KIND_SHMEM,
    PAGE_TABLE,
    TALLY_PRESENT,
    UNSEEN,
    USED,
    WHOLE,
)
from gmemlab.core.mapping import block_row, fill_block, frame_of, open_details, set_content, settle
from gmemlab.core.operations.checks import check_within
from gmemlab.core.operations.punch import defer_pages, punch_blocks
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def is_whole(state: State, row: int) -> bool:
    """Whether a file block lies, all of it, in one folio of order 9."""
    block = state.file_blocks[row]
    return bool(block.block and block.nr_present == BLOCK_PAGES and state.blocks[block.block].kind == WHOLE)


@jit
def is_held(state: State, row: int, base: int) -> bool:
    """Whether any page of a file block is pinned or referenced."""
    for index in range(base, base + BLOCK_PAGES):
        pfn = frame_of(state, row, index)
        if pfn and folio_busy(state, pfn):
            return True
    return False


@jit
def move_pages(state: State, file: int, base: int, pfn: int) -> None:
    """Put the 2 MiB of anonymous memory at page `base` into the folio at frame `pfn`, page by page; holes are zeros."""
    row = block_row(state, file, base)
    block = state.file_blocks[row]
    details = open_details(state, row)
    for offset in range(BLOCK_PAGES):
        page = state.pages[details + offset]
        content = page.content
        if page.frame:
            defer_pages(state, file, base + offset, base + offset + 1)
        page.frame = pfn + offset
        page.content = content
        block.nr_present += 1
    block.block = pfn >> BLOCK_ORDER
    block.marks = (block.marks & ~PAGE_TABLE) | UNSEEN
    settle(state, file, base)


@jit
def collapse_block(state: State, file: int, base: int) -> int:
    """Copy the 2 MiB at page `base` into a new folio; holes become zero pages. Returns 0 or the errno.

    EINVAL: nothing is there, not even a page table. EAGAIN: a page is held. ENOMEM: no free 2 MiB.
    """
    row = block_row(state, file, base)
    if state.file_blocks[row].nr_present == 0 and state.file_blocks[row].marks & PAGE_TABLE == 0:
        return errno.EINVAL
    if is_whole(state, row):
        return 0
    if is_held(state, row, base):
        return errno.EAGAIN
    pfn = alloc_folio(state, BLOCK_ORDER, file, base)
    if pfn == 0:
        return errno.ENOMEM
    if state.files[file].kind == KIND_ANON:
        move_pages(state, file, base, pfn)
    else:
        punch_blocks(state, file, base, base + BLOCK_PAGES)
        fill_block(state, row, pfn >> BLOCK_ORDER)
        set_content(state, row, 0, BLOCK_PAGES, USED)
    state.tally[TALLY_PRESENT + BLOCK_ORDER] += BLOCK_PAGES
    state.tally[layout.TALLY_ALLOCATED + BLOCK_ORDER] += 1
    state.tally[layout.TALLY_COLLAPSED] += 1
    return 0


@part
def collapse(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """Collapse every aligned 2 MiB inside [first, first + count). Returns (errno of the last that failed, pages collapsed).

    EINVAL also for memory that has no such operation (L7), and for a range without a whole aligned 2 MiB.
    """
    error = check_within(state, file, first, count, 1)
    if error:
        return error, 0
    kind = state.files[file].kind
    begin = (first + BLOCK_PAGES - 1) // BLOCK_PAGES * BLOCK_PAGES
    end = (first + count) // BLOCK_PAGES * BLOCK_PAGES
    if (kind != KIND_SHMEM and kind != KIND_ANON) or begin >= end:
        return errno.EINVAL, 0
    done = 0
    for base in range(begin, end, BLOCK_PAGES):
        failed = collapse_block(state, file, base)
        if failed:
            error = failed
        else:
            done += BLOCK_PAGES
    return error, done
