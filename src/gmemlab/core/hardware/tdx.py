"""TDX: the secure EPT, through which the module maps a guest's private pages (G76 to G80; arch/x86/kvm/vmx/tdx.c and TDX3).

A page that is mapped was added (before the guest runs) or augmented, and is accepted or pending. Nothing is promoted; what is
zapped must be accepted again.
"""

from gmemlab.core import layout
from gmemlab.core.frames import folio_order
from gmemlab.core.guestmap import limiting_term, map_base_pages, map_huge, shatter, unmap_base_pages, unmap_block
from gmemlab.core.hardware.bits import count_marked, mark
from gmemlab.core.hardware.counts import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_MISMATCH,
    AUG_2M,
    AUG_4K,
    DEMOTE,
    FAULT_4K,
    PAGE_ADD,
    PAGE_ADD_IN_PLACE,
    RANGE_BLOCK,
    REMOVE_2M,
    REMOVE_4K,
    TRACK,
    UNACCEPTED,
    note,
    note_hazard,
)
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    ACCEPT_LAUNCH,
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_ACCEPT,
    HUGE_MAPPED,
    ONE_WAY,
    TOUCH,
)
from gmemlab.core.mapping import block_row, block_span, frame_of
from gmemlab.core.page_details import ACCEPTED
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def demote(state: State, file: int, row: int, cause: int) -> None:
    """Split a 2 MiB mapping: block, track, demote (G77)."""
    note(state, file, RANGE_BLOCK, 1)
    note(state, file, TRACK, 1)
    note(state, file, DEMOTE, 1)
    shatter(state, row, cause)


@jit
def add_pages(state: State, file: int, row: int, begin: int, end: int, operation: int) -> None:
    """TDH.MEM.PAGE.ADD: pages of the launch image, at 4 KiB (G76), accepted from the start."""
    note(state, file, operation, map_base_pages(state, row, begin, end))
    mark(state, row, begin, end, ACCEPTED, 1)


@jit
def augment(state: State, file: int, index: int, begin: int, end: int, accept: int) -> None:
    """The guest touches or accepts pages [begin, end) of the block at page `index` that may not be mapped yet."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.nr_mapped == 0 and limiting_term(state, file, index + begin, accept) == layout.TERM_NONE:
        map_huge(state, file, row)
        note(state, file, AUG_2M, 1)
        return
    mapped = map_base_pages(state, row, begin, end)
    if mapped and accept == layout.ACCEPT_4K and folio_order(state, frame_of(state, row, index + begin)) >= BLOCK_ORDER:
        state.hardware[row].marks |= ONE_WAY  # with the fault that the accept took (`tdx_handle_ept_violation`)
    note(state, file, FAULT_4K, mapped)
    note(state, file, AUG_4K, mapped)


@part
def access(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block; or its VMM launches it with them."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    fresh = stop - begin - count_marked(state, row, begin, stop, ACCEPTED)
    if accept >= ACCEPT_LAUNCH:
        if block.marks & HUGE_MAPPED == 0:
            add_pages(state, file, row, begin, stop, PAGE_ADD if accept == ACCEPT_LAUNCH else PAGE_ADD_IN_PLACE)
        return
    if accept == layout.ACCEPT_2M and fresh < BLOCK_PAGES:
        accept = layout.ACCEPT_4K
    if block.marks & HUGE_MAPPED == 0:
        augment(state, file, first, begin, stop, accept)
    elif accept == layout.ACCEPT_4K and fresh:
        demote(state, file, row, CAUSE_ACCEPT)
        state.hardware[row].marks |= ONE_WAY
    if fresh == 0:
        return
    if accept == TOUCH:
        note(state, file, UNACCEPTED, fresh)
        note_hazard(state, layout.HAZARD_UNACCEPTED, fresh)
    elif accept == layout.ACCEPT_2M and block.marks & HUGE_MAPPED:
        note(state, file, ACCEPT_2M, 1)
    else:
        if accept == layout.ACCEPT_2M:
            note(state, file, ACCEPT_MISMATCH, 1)
        note(state, file, ACCEPT_4K, fresh)
    mark(state, row, begin, stop, ACCEPTED, 1)


@jit
def remove(state: State, file: int, pages: int) -> None:
    """Take so many mapped pages, or (-1) one of 2 MiB, out of the S-EPT: each blocked, tracked, removed and cleared.

    So at tear-down, too (K17): closing the file zaps all of it, before the TD's key is given back (vmx/tdx.c, 6.16).
    """
    note(state, file, RANGE_BLOCK, abs(pages))
    note(state, file, TRACK, abs(pages))
    note(state, file, REMOVE_2M if pages < 0 else REMOVE_4K, abs(pages))


@part
def unmap_entries(state: State, file: int, index: int, end: int, cause: int) -> None:
    """Zap pages [index, end) of one block that is mapped, at least in part, and nothing else (G78)."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    begin = index & (BLOCK_PAGES - 1)
    stop = begin + end - index
    if stop - begin >= block_span(state, file, index):
        remove(state, file, unmap_block(state, row))
    else:
        if block.marks & HUGE_MAPPED:
            demote(state, file, row, cause)
        remove(state, file, unmap_base_pages(state, row, begin, stop))
    mark(state, row, begin, stop, ACCEPTED, 0)
