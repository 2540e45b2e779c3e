"""Where in the host guests' page states lie: what RMPOPT and Dynamic PAMT depend on (G84, C20, C22)."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRAME_ORPHAN, GUEST_SNP, GUEST_TDX, HUGE_MAPPED, ORPHAN, SPLIT
from gmemlab.core.mapping import frame_of
from gmemlab.core.page_details import ASSIGNED, MAPPED, has_mark
from gmemlab.core.state import State

SNP: Final = 1
TDX_SMALL: Final = 2
Marks = NDArray[np.int64]


@jit
def mark_file_block(state: State, row: int, guest: int, marks: Marks) -> None:
    """Mark the host blocks behind one 2 MiB of a guest."""
    block = state.file_blocks[row]
    if guest == GUEST_SNP:
        if state.hardware[row].nr_assigned == 0:
            return
        mark = SNP
    else:
        if block.nr_mapped == 0 or block.marks & HUGE_MAPPED:
            return
        mark = TDX_SMALL
    if block.block:
        marks[block.block] |= mark
        return
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        pfn = frame_of(state, row, offset)
        if pfn and has_mark(state, base + offset, ASSIGNED if guest == GUEST_SNP else MAPPED):
            marks[pfn >> BLOCK_ORDER] |= mark


@jit
def is_kept(state: State, block: int) -> bool:
    """Whether a host block has an orphan whose frames the RMP still gives to a guest."""
    record = state.blocks[block]
    if record.kind == ORPHAN:
        return bool(record.assigned)
    if record.kind != SPLIT:
        return False
    base = int(record.detail) * BLOCK_PAGES
    for slot in range(base, base + BLOCK_PAGES):
        if state.frames[slot].kind == FRAME_ORPHAN and state.frames[slot].index:
            return True
    return False


@entry
def mark_places(state: State, marks: Marks) -> None:
    """Set the bits SNP and TDX_SMALL of each host block, in `marks` (by number of the block, zeroed by the caller)."""
    for file in range(1, int(state.host[0].next_file)):
        record = state.files[file]
        if record.alive and (record.guest == GUEST_SNP or record.guest == GUEST_TDX):
            first = int(record.first_block)
            for row in range(first, first + ((int(record.pages) + BLOCK_PAGES - 1) >> BLOCK_ORDER)):
                mark_file_block(state, row, int(record.guest), marks)
    for block in range(1, int(state.host[0].nr_blocks) + 1 if state.host[0].kept_entries else 1):
        if is_kept(state, block):
            marks[block] |= SNP
