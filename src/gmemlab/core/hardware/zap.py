"""Taking the guest's mapping of private pages away, as its hardware has it."""

from gmemlab.core import decisions, layout
from gmemlab.core.guestmap import forget_mapping, limiting_term, map_huge, map_in_use, shatter, zap_huge
from gmemlab.core.hardware import snp, tdx
from gmemlab.core.jit import inline
from gmemlab.core.layout import BLOCK_PAGES, GUEST_SNP, GUEST_TDX, HISTORY, HUGE_MAPPED, TOUCH, ZAPPED
from gmemlab.core.mapping import block_row, block_span, open_details
from gmemlab.core.parts import part
from gmemlab.core.state import State


@inline
def unmap(state: State, file: int, index: int, end: int, cause: int) -> None:
    """Remove the guest's mapping of pages [index, end) of one block; `mend` ends what was done to the block then."""
    if state.file_blocks[block_row(state, file, index)].nr_mapped:
        unmap_entries(state, file, index, end, cause)


@part
def unmap_entries(state: State, file: int, index: int, end: int, cause: int) -> None:
    """`unmap`, where something is mapped."""
    guest = int(state.files[file].guest)
    if guest == GUEST_TDX:
        tdx.unmap_entries(state, file, index, end, cause)
        return
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
        if not decisions.zaps_exactly(guest):
            zap_huge(state, row, cause)
            return
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


@inline
def mend(state: State, file: int, index: int) -> None:
    """After all that was done to the block around page `index`: what was in use of a zapped 2 MiB mapping faults back.

    That a guest comes back to every page that it used is taken for granted; how soon is open.
    """
    if state.hardware[block_row(state, file, index)].marks & ZAPPED:
        refault(state, file, index)


@part
def refault(state: State, file: int, index: int) -> None:
    """`mend`, where something was zapped."""
    if state.files[file].guest == GUEST_SNP:
        snp.mend(state, file, index)
        return
    row = block_row(state, file, index)
    state.hardware[row].marks &= ~ZAPPED
    block = state.file_blocks[row]
    if block.nr_present == BLOCK_PAGES and block.nr_shared == 0:
        if limiting_term(state, file, index & ~(BLOCK_PAGES - 1), TOUCH) == layout.TERM_NONE:
            map_huge(state, file, row)
            return
    if block.nr_present:
        map_in_use(state, file, row)
