"""The guest's second-stage mapping of private memory: level by the rule of K8, shattering and healing by K6."""

from gmemlab.core import layout
from gmemlab.core.decisions import mapping_term
from gmemlab.core.frames import folio_order
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    ACCEPT_4K,
    BLOCK_ORDER,
    BLOCK_PAGES,
    HISTORY,
    HUGE_MAPPED,
    INHIBIT,
    MAX_SLOTS,
    SHATTERED,
)
from gmemlab.core.mapping import block_row, block_span, frame_of, is_shared, open_details
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def slot_holding(state: State, file: int, index: int) -> int:
    """Row in `state.slots` of the memslot through which the guest sees page `index`; -1 for a page in no slot."""
    for row in range(file * MAX_SLOTS, (file + 1) * MAX_SLOTS):
        slot = state.slots[row]
        if slot.offset <= index < slot.offset + slot.count:
            return row
    return -1


@jit
def limiting_term(state: State, file: int, index: int, accept: int) -> int:
    """Why page `index` cannot be mapped at 2 MiB (TERM_*), or TERM_NONE."""
    row = block_row(state, file, index)
    pfn = frame_of(state, row, index)
    if pfn == 0:
        return layout.TERM_ABSENT
    if is_shared(state, row, index):
        return layout.TERM_SHARED
    block = state.file_blocks[row]
    first = index & ~(BLOCK_PAGES - 1)
    in_slot = False
    congruent = False
    slot_row = slot_holding(state, file, index)
    if slot_row >= 0:
        slot = state.slots[slot_row]
        in_slot = bool(slot.offset <= first and first + BLOCK_PAGES <= slot.offset + slot.count)
        congruent = bool(((slot.gfn - slot.offset) & (BLOCK_PAGES - 1)) == 0)
    return mapping_term(folio_order(state, pfn), in_slot, congruent, block.nr_shared > 0, int(block.marks), accept)


@jit
def shatter(state: State, row: int, cause: int) -> None:
    """Replace a 2 MiB entry by 512 entries of 4 KiB."""
    block = state.file_blocks[row]
    block.marks = (block.marks & ~HUGE_MAPPED) | HISTORY | SHATTERED
    state.tally[layout.TALLY_SHATTERED + cause] += 1


@jit
def map_huge(state: State, row: int) -> None:
    """Map a block with one 2 MiB entry."""
    block = state.file_blocks[row]
    state.tally[layout.TALLY_MAPPED_2M] += 1
    if block.marks & SHATTERED:
        state.tally[layout.TALLY_HEALED_MAPPING + layout.CAUSE_POPULATE] += 1
    block.marks = (block.marks | HUGE_MAPPED) & ~SHATTERED
    block.nr_mapped = BLOCK_PAGES
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            state.pages[base + offset].mapped = 1


@jit
def map_base_pages(state: State, row: int, begin: int, end: int) -> None:
    """Map the private pages [begin, end) of a block at 4 KiB, those that are not mapped yet."""
    block = state.file_blocks[row]
    if block.nr_mapped == BLOCK_PAGES:
        return
    block.marks |= HISTORY
    if block.nr_mapped == 0 and begin == 0 and end == BLOCK_PAGES and block.detail == 0:
        block.nr_mapped = BLOCK_PAGES
        state.tally[layout.TALLY_MAPPED_4K] += BLOCK_PAGES
        return
    base = open_details(state, row)
    for offset in range(begin, end):
        page = state.pages[base + offset]
        if page.mapped == 0:
            page.mapped = 1
            block.nr_mapped += 1
            state.tally[layout.TALLY_MAPPED_4K] += 1


@part
def map_private(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.marks & HUGE_MAPPED:
        if accept == ACCEPT_4K:
            shatter(state, row, layout.CAUSE_ACCEPT)
            block.marks |= INHIBIT
        return
    term = limiting_term(state, file, index, accept)
    if term == layout.TERM_NONE:
        map_huge(state, row)
        return
    if accept == ACCEPT_4K and folio_order(state, frame_of(state, row, index)) >= BLOCK_ORDER:
        block.marks |= INHIBIT
    map_base_pages(state, row, index & (BLOCK_PAGES - 1), index - (index & ~(BLOCK_PAGES - 1)) + end - index)


@inline
def unmap(state: State, file: int, index: int, end: int, cause: int) -> None:
    """Remove the guest's mapping of pages [index, end) of one block, and of nothing else (G78)."""
    if state.file_blocks[block_row(state, file, index)].nr_mapped:
        unmap_entries(state, file, index, end, cause)


@part
def unmap_entries(state: State, file: int, index: int, end: int, cause: int) -> None:
    """`unmap`, where something is mapped."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    begin = index & (BLOCK_PAGES - 1)
    stop = begin + end - index
    if stop - begin >= block_span(state, file, index):
        huge = bool(block.marks & HUGE_MAPPED)
        state.tally[layout.TALLY_UNMAPPED_2M if huge else layout.TALLY_UNMAPPED_4K] += 1 if huge else block.nr_mapped
        forget_mapping(state, row)
        return
    if block.marks & HUGE_MAPPED:
        shatter(state, row, cause)
    base = open_details(state, row)
    for offset in range(begin, stop):
        page = state.pages[base + offset]
        if page.mapped:
            page.mapped = 0
            block.nr_mapped -= 1
            state.tally[layout.TALLY_UNMAPPED_4K] += 1
    if block.nr_mapped == 0:
        block.marks &= ~HISTORY


@jit
def forget_mapping(state: State, row: int) -> None:
    """No page of the block is mapped any more: what it was mapped with before no longer counts (K6)."""
    block = state.file_blocks[row]
    block.nr_mapped = 0
    block.marks &= ~(HUGE_MAPPED | HISTORY)
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            state.pages[base + offset].mapped = 0
