"""Folios leave their file: one as a whole, or base pages, one alone or a run in the chunks that become free."""

from gmemlab.core.frames import leave_base_pages, leave_folio, open_block
from gmemlab.core.hardware import rmp
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, GUEST_SNP, TALLY_PRESENT, UNIFORM
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, empty_block, open_details, open_frames, remove_pages
from gmemlab.core.state import State


@jit
def drop_folio(state: State, file: int, index: int, order: int, pfn: int) -> None:
    """A folio of order 9 or less, at page `index` and frame `pfn`, leaves its file as a whole."""
    row = block_row(state, file, index)
    if state.files[file].guest == GUEST_SNP:
        rmp.leave(state, file, index, order)
    if order == BLOCK_ORDER:
        empty_block(state, row)
    else:
        open_details(state, row)
        offset = index & (BLOCK_PAGES - 1)
        remove_pages(state, row, offset, offset + (1 << order))
    state.tally[TALLY_PRESENT + order] -= 1 << order
    leave_folio(state, pfn, order)


@inline
def idle_chunk(state: State, place: int, pfn: int, most: int) -> int:
    """Order of the largest aligned chunk of base pages, idle and in order, that begins with the page whose frame is `pfn`.

    Of at most `most` pages and below order 9; 0 also where the page is busy, or a CPU would keep what is freed. `place` is the
    page's row in `state.page_frames`.
    """
    slot = slot_of(state, pfn)
    if most < 2 or state.host[0].nr_cpus or state.frames[slot].busy:
        return 0
    order = 0
    while order < BLOCK_ORDER - 1 and pfn & (1 << order) == 0 and (2 << order) <= most:
        for member in range(1 << order, 2 << order):
            frame = state.frames[slot + member]
            if state.page_frames[place + member] != pfn + member or frame.busy or frame.order:
                return order
        order += 1
    return order


@inline
def drop_base_page(state: State, file: int, row: int, index: int, pfn: int, movable: bool) -> None:
    """`drop_base_pages` of one page, `index`, in frame `pfn`: without loops, for speed."""
    if state.blocks[pfn >> BLOCK_ORDER].kind == UNIFORM:
        open_block(state, pfn >> BLOCK_ORDER)
    if state.files[file].guest == GUEST_SNP:
        rmp.leave_base_page(state, file, row, index, pfn)
    open_details(state, row)
    offset = index & (BLOCK_PAGES - 1)
    remove_pages(state, row, offset, offset + 1)
    state.tally[TALLY_PRESENT] -= 1
    leave_base_pages(state, pfn, 0, movable)


@jit
def drop_base_pages(state: State, file: int, row: int, begin: int, end: int, movable: bool) -> int:
    """The base pages from page `begin` on, which is one, leave a 2 MiB of a file; all are unmapped already.

    They do so in the chunks that single steps would merge. Returns where the run ends: at `end`, a hole or a larger folio.
    """
    assigned = state.files[file].guest == GUEST_SNP
    first = open_details(state, row) + (begin & (BLOCK_PAGES - 1))
    open_frames(state, row)
    stop = first + end - begin
    place = first
    while place < stop:
        pfn = int(state.page_frames[place])
        if pfn == 0:
            break
        if state.blocks[pfn >> BLOCK_ORDER].kind == UNIFORM:
            open_block(state, pfn >> BLOCK_ORDER)
        if place > first and state.frames[slot_of(state, pfn)].order:
            break
        order = idle_chunk(state, place, pfn, stop - place)
        if assigned:
            for page in range(1 << order):
                rmp.leave_base_page(state, file, row, begin + place - first + page, pfn + page)
        leave_base_pages(state, pfn, order, movable)
        place += 1 << order
    offset = begin & (BLOCK_PAGES - 1)
    remove_pages(state, row, offset, offset + place - first)
    state.tally[TALLY_PRESENT] -= place - first
    return begin + place - first
