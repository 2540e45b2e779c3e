"""Taking the guest's mapping of private pages away, as its hardware has it."""

from gmemlab.core import decisions, layout
from gmemlab.core.guestmap import limiting_term, map_huge, map_in_use, shatter, unmap_base_pages, unmap_block, zap_huge
from gmemlab.core.hardware import snp, tdx
from gmemlab.core.jit import inline
from gmemlab.core.layout import BLOCK_PAGES, GUEST_SNP, GUEST_TDX, HUGE_MAPPED, TOUCH, ZAPPED
from gmemlab.core.mapping import block_row, block_span
from gmemlab.core.parts import part
from gmemlab.core.state import State


@inline
def unmap(state: State, file: int, row: int, index: int, end: int, cause: int) -> None:
    """Remove the guest's mapping of pages [index, end) of one block; `mend` ends what was done to the block then."""
    if state.file_blocks[row].nr_mapped:
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
        unmap_block(state, row)
        return
    if block.marks & HUGE_MAPPED:
        in_place = decisions.shares_in_place(state.policies[state.files[file].policy])
        if not decisions.zaps_exactly(guest, in_place and cause == layout.CAUSE_CONVERT):
            zap_huge(state, row, cause)
            return
        shatter(state, row, cause)
    unmap_base_pages(state, row, begin, stop)


@inline
def mend(state: State, file: int, row: int, index: int) -> None:
    """After all that was done to the block around page `index`: what was in use of a zapped 2 MiB mapping faults back.

    That a guest comes back to every page that it used is taken for granted; how soon is open.
    """
    if state.hardware[row].marks & ZAPPED:
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
