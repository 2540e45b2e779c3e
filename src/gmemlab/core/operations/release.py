"""Releasing the huge pages of unit files: back to the pool or to the buddy allocator."""

import errno

from gmemlab.core import layout
from gmemlab.core.buddy import free_block
from gmemlab.core.frames import folio_busy, folio_order, leave_folio
from gmemlab.core.hardware import rmp
from gmemlab.core.hardware.zap import unmap
from gmemlab.core.hostmap import unmap_range_from_host
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_PUNCH,
    GUEST_SNP,
    ORPHAN,
    PROMISED,
    SOURCE_POOL,
    TALLY_PRESENT,
    UNIFORM,
)
from gmemlab.core.mapping import block_row, empty_block, settle
from gmemlab.core.operations.split import block_is_busy, join_unit
from gmemlab.core.parts import part
from gmemlab.core.pools import return_page
from gmemlab.core.state import State


@jit
def unit_is_whole(state: State, row: int, order: int) -> bool:
    """Whether the huge page at a file block is one folio."""
    return bool(state.blocks[state.file_blocks[row].block].order == order)


@jit
def pieces_are_busy(state: State, row: int, order: int) -> bool:
    """Whether any piece of a split huge page has pins or references."""
    for step in range(1 << (order - BLOCK_ORDER)):
        if block_is_busy(state, int(state.file_blocks[row + step].block)):
            return True
    return False


@jit
def empty_unit(state: State, file: int, base: int, order: int) -> None:
    """Unmap a huge page from guest and file."""
    row = block_row(state, file, base)
    for step in range(1 << (order - BLOCK_ORDER)):
        index = base + step * BLOCK_PAGES
        unmap(state, file, row + step, index, index + BLOCK_PAGES, CAUSE_PUNCH)
        empty_block(state, row + step)
        settle(state, file, index)


@jit
def orphan_unit(state: State, file: int, block: int, order: int, pooled: bool) -> None:
    """Keep a busy huge page that left a file until its last pin goes.

    A negative owner says that it came from a pool, and `index` which file gets its reservation back. That file is alive as
    long as the page is held: it drops its holds before it goes.
    """
    state.tally[layout.TALLY_ORPHANED_PAGES] += 1 << order
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        record = state.blocks[piece]
        record.kind = ORPHAN
        record.owner = -1 if pooled else 0
        record.index = file


@jit
def take_back_pieces(state: State, file: int, base: int, pfn: int) -> None:
    """`rmp.leave` of each piece of a split 2 MiB page at page `base` and frame `pfn`."""
    if state.blocks[pfn >> BLOCK_ORDER].kind == UNIFORM:
        rmp.take_back(state, file, base, base + BLOCK_PAGES, False)
        return
    index = base
    while index < base + BLOCK_PAGES:
        order = folio_order(state, pfn + index - base)
        rmp.leave(state, file, index, order)
        index += 1 << order


@jit
def release_pieces(state: State, file: int, base: int) -> None:
    """Release a split 2 MiB page that came from the buddy allocator, piece by piece (busy ones become orphans)."""
    row = block_row(state, file, base)
    block = int(state.file_blocks[row].block)
    if state.files[file].guest == GUEST_SNP:
        take_back_pieces(state, file, base, block << BLOCK_ORDER)
    empty_unit(state, file, base, BLOCK_ORDER)
    if state.blocks[block].kind == UNIFORM and state.host[0].nr_cpus == 0:
        state.tally[TALLY_PRESENT] -= BLOCK_PAGES
        state.tally[layout.TALLY_RELEASED] += BLOCK_PAGES
        free_block(state, block)
        return
    pfn = block << BLOCK_ORDER
    stop = pfn + BLOCK_PAGES
    while pfn < stop:
        order = folio_order(state, pfn)
        state.tally[TALLY_PRESENT + order] -= 1 << order
        leave_folio(state, pfn, order)
        pfn += 1 << order


@part
def release_unit(state: State, file: int, base: int, order: int) -> int:
    """Take one whole huge page out of a unit file. Returns 0, or EAGAIN where pieces of a pool page are busy (G73).

    It leaves the reservation map of hugetlb memory too; what is promised and absent stays so (L19).
    """
    row = block_row(state, file, base)
    if state.file_blocks[row].nr_present == 0:
        return 0
    record = state.files[file]
    pooled = state.policies[record.policy].source == SOURCE_POOL
    unmap_range_from_host(state, file, base, min(base + (1 << order), int(record.pages)))  # before the check (G73)
    if not unit_is_whole(state, row, order):
        if not pooled:
            release_pieces(state, file, base)
            return 0
        if pieces_are_busy(state, row, order):
            return errno.EAGAIN
        join_unit(state, file, base, order)
    block = int(state.file_blocks[row].block)
    if record.guest == GUEST_SNP:
        rmp.leave(state, file, base, order)
    empty_unit(state, file, base, order)
    state.file_blocks[row].marks &= ~PROMISED
    state.tally[TALLY_PRESENT + order] -= 1 << order
    state.tally[layout.TALLY_RELEASED + order] += 1
    if folio_busy(state, block << BLOCK_ORDER):
        orphan_unit(state, file, block, order, pooled)
    else:
        return_page(state, block, order, pooled, file)
    return 0
