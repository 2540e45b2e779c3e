"""TDX: the secure EPT, through which the module maps a guest's private pages (G76 to G80; arch/x86/kvm/vmx/tdx.c and TDX3).

A page that is mapped was added (before the guest runs) or augmented, and is accepted or pending. Nothing is promoted; what is
zapped must be accepted again.
"""

from gmemlab.core import layout
from gmemlab.core.frames import folio_order
from gmemlab.core.guestmap import forget_mapping, limiting_term, map_base_pages, map_huge, shatter
from gmemlab.core.hardware.accepted import count_accepted, set_accepted
from gmemlab.core.hardware.counts import (
    ACCEPT_2M,
    ACCEPT_4K,
    ACCEPT_MISMATCH,
    AUG_2M,
    AUG_4K,
    DEMOTE,
    FAULT_4K,
    PAGE_ADD,
    RANGE_BLOCK,
    RECLAIM_2M,
    RECLAIM_4K,
    REMOVE_2M,
    REMOVE_4K,
    TRACK,
    UNACCEPTED,
    note,
)
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    ACCEPT_LAUNCH,
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_ACCEPT,
    HUGE_MAPPED,
    ONE_WAY,
    PHASE_TEAR_DOWN,
    TOUCH,
)
from gmemlab.core.mapping import block_row, block_span, frame_of, open_details
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
def add_pages(state: State, file: int, row: int, begin: int, end: int) -> None:
    """TDH.MEM.PAGE.ADD: pages of the launch image, at 4 KiB (G76), accepted from the start."""
    note(state, file, PAGE_ADD, map_base_pages(state, row, begin, end))
    set_accepted(state, row, begin, end, 1)


@jit
def augment(state: State, file: int, index: int, begin: int, end: int, accept: int) -> None:
    """The guest touches or accepts pages [begin, end) of the block at page `index` that may not be mapped yet."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.nr_mapped == 0 and limiting_term(state, file, index + begin, accept) == layout.TERM_NONE:
        map_huge(state, file, row)
        note(state, file, AUG_2M, 1)
        return
    if accept == layout.ACCEPT_4K and folio_order(state, frame_of(state, row, index + begin)) >= BLOCK_ORDER:
        state.hardware[row].marks |= ONE_WAY
    mapped = map_base_pages(state, row, begin, end)
    note(state, file, FAULT_4K, mapped)
    note(state, file, AUG_4K, mapped)


@part
def access(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block; or its VMM launches it with them."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    fresh = stop - begin - count_accepted(state, row, begin, stop)
    if accept == ACCEPT_LAUNCH:
        if block.marks & HUGE_MAPPED == 0:
            add_pages(state, file, row, begin, stop)
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
    elif accept == layout.ACCEPT_2M and block.marks & HUGE_MAPPED:
        note(state, file, ACCEPT_2M, 1)
    else:
        if accept == layout.ACCEPT_2M:
            note(state, file, ACCEPT_MISMATCH, 1)
        note(state, file, ACCEPT_4K, fresh)
    set_accepted(state, row, begin, stop, 1)


@jit
def remove(state: State, file: int, pages: int, huge: bool) -> None:
    """Take so many mapped pages, or one of 2 MiB, out of the S-EPT; at tear-down they are reclaimed and cleared (K17)."""
    number = 1 if huge else pages
    if state.files[file].phase == PHASE_TEAR_DOWN:
        note(state, file, RECLAIM_2M if huge else RECLAIM_4K, number)
        return
    note(state, file, RANGE_BLOCK, number)
    note(state, file, TRACK, 1)
    note(state, file, REMOVE_2M if huge else REMOVE_4K, number)


@part
def unmap_entries(state: State, file: int, index: int, end: int, cause: int) -> None:
    """Zap pages [index, end) of one block that is mapped, at least in part, and nothing else (G78)."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    begin = index & (BLOCK_PAGES - 1)
    stop = begin + end - index
    if stop - begin >= block_span(state, file, index):
        huge = bool(block.marks & HUGE_MAPPED)
        mapped = int(block.nr_mapped)
        remove(state, file, mapped, huge)
        state.tally[layout.TALLY_UNMAPPED_2M if huge else layout.TALLY_UNMAPPED_4K] += 1 if huge else mapped
        forget_mapping(state, row)
        set_accepted(state, row, begin, stop, 0)
        return
    if block.marks & HUGE_MAPPED:
        demote(state, file, row, cause)
    base = open_details(state, row)
    before = int(block.nr_mapped)
    for offset in range(begin, stop):
        page = state.pages[base + offset]
        block.nr_mapped -= page.mapped
        page.mapped = 0
    if block.nr_mapped == 0:
        block.marks &= ~layout.HISTORY
    removed = before - int(block.nr_mapped)
    state.tally[layout.TALLY_UNMAPPED_4K] += removed
    if removed:
        remove(state, file, removed, False)
    set_accepted(state, row, begin, stop, 0)
