"""The guest's second-stage mapping of private memory: level by the rule of K8, shattering and healing by K6."""

from gmemlab.core import decisions, layout
from gmemlab.core.frames import folio_order
from gmemlab.core.hardware.counts import FAULT_2M, FAULT_4K, REFAULT, note
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    ACCEPT_4K,
    BLOCK_ORDER,
    BLOCK_PAGES,
    HISTORY,
    HUGE_MAPPED,
    INHIBIT,
    MAX_SLOTS,
    SHATTERED,
    ZAPPED,
)
from gmemlab.core.mapping import block_row, block_span, frame_of, is_shared, open_details
from gmemlab.core.page_details import ACCEPTED, MAPPED, SHARED, content_at, has_mark, put_mark
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
def place_in_slot(state: State, file: int, index: int) -> tuple[bool, bool]:
    """Whether one memslot holds the 2 MiB around page `index`, and whether guest and file count it alike modulo 2 MiB."""
    first = index & ~(BLOCK_PAGES - 1)
    row = slot_holding(state, file, index)
    if row < 0:
        return False, False
    slot = state.slots[row]
    in_slot = bool(slot.offset <= first and first + BLOCK_PAGES <= slot.offset + slot.count)
    return in_slot, bool(((slot.gfn - slot.offset) & (BLOCK_PAGES - 1)) == 0)


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
    in_slot, congruent = place_in_slot(state, file, index)
    hardware = state.hardware[row]
    guest = int(state.files[file].guest)
    marks = decisions.marks_that_count(guest, int(block.marks), int(hardware.marks), hardware.nr_assigned > 0)
    if not decisions.marks_accepts(state.policies[state.files[file].policy]):
        marks &= ~INHIBIT
    if not decisions.accept_limits(guest):
        accept = layout.TOUCH
    return decisions.mapping_term(folio_order(state, pfn), in_slot, congruent, block.nr_shared > 0, marks, accept)


@jit
def limiting_term_of_shared(state: State, file: int, index: int) -> int:
    """Why shared page `index` cannot be mapped at 2 MiB (K9): the terms that K8 has for it, asked of what serves it.

    That is the file itself in place, else the ordinary memory beside it, which the VMM is taken to map by its folios.
    """
    in_place = decisions.shares_in_place(state.policies[state.files[file].policy])
    side = file if in_place else int(state.files[file].shared_file)
    pfn = frame_of(state, block_row(state, side, index), index) if side else 0
    if pfn == 0:
        return layout.TERM_ABSENT
    in_slot, congruent = place_in_slot(state, file, index)
    mixed = state.file_blocks[block_row(state, file, index)].nr_shared < block_span(state, file, index)
    return decisions.mapping_term(folio_order(state, pfn), in_slot, congruent, mixed, 0, layout.TOUCH)


@jit
def shatter(state: State, row: int, cause: int) -> None:
    """Replace a 2 MiB entry by 512 entries of 4 KiB."""
    block = state.file_blocks[row]
    block.marks = (block.marks & ~HUGE_MAPPED) | HISTORY | SHATTERED
    state.tally[layout.TALLY_SHATTERED + cause] += 1


@jit
def zap_huge(state: State, row: int, cause: int) -> None:
    """Take a 2 MiB entry away for the sake of a part of it (`tdp_mmu_zap_leafs`); `mend` lets fault back what was in use."""
    state.tally[layout.TALLY_SHATTERED + cause] += 1
    state.tally[layout.TALLY_UNMAPPED_2M] += 1
    forget_mapping(state, row)
    state.file_blocks[row].marks |= SHATTERED
    state.hardware[row].marks |= ZAPPED


@jit
def map_huge(state: State, file: int, row: int) -> None:
    """A private fault maps a block with one 2 MiB entry."""
    block = state.file_blocks[row]
    note(state, file, FAULT_2M, 1)
    state.tally[layout.TALLY_MAPPED_2M] += 1
    if block.marks & SHATTERED:
        state.tally[layout.TALLY_HEALED_MAPPING + layout.CAUSE_POPULATE] += 1
    block.marks = (block.marks | HUGE_MAPPED) & ~(SHATTERED | HISTORY)
    block.nr_mapped = BLOCK_PAGES
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            put_mark(state, base + offset, MAPPED, 1)


@jit
def map_base_pages(state: State, row: int, begin: int, end: int) -> int:
    """Map the private pages [begin, end) of a block at 4 KiB, those that are not mapped yet. Returns how many."""
    block = state.file_blocks[row]
    if block.nr_mapped == BLOCK_PAGES:
        return 0
    block.marks |= HISTORY
    before = int(block.nr_mapped)
    if before == 0 and begin == 0 and end == BLOCK_PAGES and block.detail == 0:
        block.nr_mapped = BLOCK_PAGES
    else:
        base = open_details(state, row)
        for offset in range(begin, end):
            if not has_mark(state, base + offset, MAPPED):
                put_mark(state, base + offset, MAPPED, 1)
                block.nr_mapped += 1
    mapped = int(block.nr_mapped) - before
    state.tally[layout.TALLY_MAPPED_4K] += mapped
    return mapped


@jit
def unmap_base_pages(state: State, row: int, begin: int, end: int) -> int:
    """Unmap the pages [begin, end) of a block mapped at 4 KiB. Returns how many; with the last one its history ends (K6)."""
    block = state.file_blocks[row]
    base = open_details(state, row)
    before = int(block.nr_mapped)
    for offset in range(begin, end):
        block.nr_mapped -= has_mark(state, base + offset, MAPPED)
        put_mark(state, base + offset, MAPPED, 0)
    if block.nr_mapped == 0:
        block.marks &= ~HISTORY
    unmapped = before - int(block.nr_mapped)
    state.tally[layout.TALLY_UNMAPPED_4K] += unmapped
    return unmapped


@jit
def unmap_block(state: State, row: int) -> int:
    """Unmap all of a block that is mapped. Returns its pages, or -1 for one 2 MiB entry."""
    block = state.file_blocks[row]
    mapped = -1 if block.marks & HUGE_MAPPED else int(block.nr_mapped)
    state.tally[layout.TALLY_UNMAPPED_2M if mapped < 0 else layout.TALLY_UNMAPPED_4K] += abs(mapped)
    forget_mapping(state, row)
    return mapped


@jit
def is_in_use(state: State, file: int, row: int, offset: int) -> bool:
    """Whether the guest uses a page of a block that has details: it accepted it, or (where nothing is accepted) wrote to it."""
    slot = int(state.file_blocks[row].detail) * BLOCK_PAGES + offset
    if frame_of(state, row, offset) == 0 or has_mark(state, slot, SHARED):
        return False
    if decisions.accepts(int(state.files[file].guest)):
        return bool(has_mark(state, slot, ACCEPTED))
    return content_at(state, slot) != layout.FRESH


@jit
def map_in_use(state: State, file: int, row: int) -> None:
    """What is in use of a block, and not mapped, faults back at 4 KiB."""
    block = state.file_blocks[row]
    base = open_details(state, row)
    found = 0
    for offset in range(BLOCK_PAGES):
        if not has_mark(state, base + offset, MAPPED) and is_in_use(state, file, row, offset):
            put_mark(state, base + offset, MAPPED, 1)
            found += 1
    block.nr_mapped += found
    if found:
        block.marks |= HISTORY
    state.tally[layout.TALLY_MAPPED_4K] += found
    note(state, file, REFAULT, found)


@part
def map_private(state: State, file: int, index: int, end: int, accept: int) -> None:
    """A guest without page state touches or accepts the present private pages [index, end) of one block."""
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.marks & HUGE_MAPPED:
        if accept == ACCEPT_4K and state.files[file].guest == layout.GUEST_GENERIC:
            shatter(state, row, layout.CAUSE_ACCEPT)
            block.marks |= INHIBIT
        return
    term = limiting_term(state, file, index, accept)
    if term == layout.TERM_NONE:
        if block.nr_mapped < BLOCK_PAGES:  # else nothing faults
            map_huge(state, file, row)
        return
    if accept == ACCEPT_4K and folio_order(state, frame_of(state, row, index)) >= BLOCK_ORDER:
        block.marks |= INHIBIT
    first = index & ~(BLOCK_PAGES - 1)
    note(state, file, FAULT_4K, map_base_pages(state, row, index - first, end - first))


@jit
def forget_mapping(state: State, row: int) -> None:
    """No page of the block is mapped any more: what it was mapped with before no longer counts (K6)."""
    block = state.file_blocks[row]
    block.nr_mapped = 0
    block.marks &= ~(HUGE_MAPPED | HISTORY)
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            put_mark(state, base + offset, MAPPED, 0)
