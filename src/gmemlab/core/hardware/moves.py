"""Private pages that are given other frames: what the hardware would be told (K16, G87). An upper bound, which no kernel does.

Under SNP the target is made the firmware's by an RMPUPDATE, SNP_PAGE_MOVE copies the page, and the source is made shared by
another: those of 4 KiB split the kernel's mapping on both sides (K11). Under TDX the mapping is blocked and tracked, then
TDH.MEM.PAGE.RELOCATE copies the page; that it could do so for 2 MiB at once is assumed. Pages that neither RMP nor S-EPT knows
are the kernel's to copy. That a moved page is mapped once more is not counted: the guest's mapping stays as it was.
"""

from gmemlab.core import decisions
from gmemlab.core.guestmap import shatter, zap_huge
from gmemlab.core.hardware.counts import (
    PAGE_MOVE_2M,
    PAGE_MOVE_4K,
    RANGE_BLOCK,
    RMPUPDATE_PRIVATE_2M,
    RMPUPDATE_PRIVATE_4K,
    RMPUPDATE_SHARED_2M,
    RMPUPDATE_SHARED_4K,
    TRACK,
    note,
)
from gmemlab.core.hardware.rmp import smash, split_direct_map
from gmemlab.core.hardware.tdx import demote
from gmemlab.core.hardware.zap import mend
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    CAUSE_POPULATE,
    GUEST_SNP,
    GUEST_TDX,
    HUGE_MAPPED,
    KIND_GUEST_MEMFD,
    RMP_WHOLE,
)
from gmemlab.core.mapping import block_row
from gmemlab.core.page_details import ASSIGNED, MAPPED, has_mark
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def note_small(state: State, file: int, pages: int, source: int, target: int) -> None:
    """So many 4 KiB pages move from one host block to another, which is not the same."""
    if pages == 0:
        return
    if state.files[file].guest == GUEST_SNP:
        note(state, file, RMPUPDATE_PRIVATE_4K, pages)
        split_direct_map(state, file, target)
        note(state, file, RMPUPDATE_SHARED_4K, pages)
        split_direct_map(state, file, source)
    else:
        note(state, file, RANGE_BLOCK, pages)
        note(state, file, TRACK, pages)
    note(state, file, PAGE_MOVE_4K, pages)


@part
def move_page_state(state: State, file: int, slot: int, source: int, target: int) -> None:
    """The page with details at `slot` moves from one frame to another."""
    guest = state.files[file].guest
    known = 0
    if guest == GUEST_SNP:
        known = has_mark(state, slot, ASSIGNED)
    elif guest == GUEST_TDX:
        known = has_mark(state, slot, MAPPED)
    note_small(state, file, known, source >> BLOCK_ORDER, target >> BLOCK_ORDER)


@part
def move_block_state(state: State, file: int, row: int, source: int, target: int) -> None:
    """A file block that lies in one host block, as one folio, moves to another."""
    guest = state.files[file].guest
    if guest == GUEST_SNP:
        if state.hardware[row].marks & RMP_WHOLE:
            note(state, file, RMPUPDATE_PRIVATE_2M, 1)
            note(state, file, PAGE_MOVE_2M, 1)
            note(state, file, RMPUPDATE_SHARED_2M, 1)
        else:
            note_small(state, file, int(state.hardware[row].nr_assigned), source, target)
    elif guest == GUEST_TDX:
        if state.file_blocks[row].marks & HUGE_MAPPED:
            note(state, file, RANGE_BLOCK, 1)
            note(state, file, TRACK, 1)
            note(state, file, PAGE_MOVE_2M, 1)
        else:
            note_small(state, file, int(state.file_blocks[row].nr_mapped), source, target)


@part
def part_huge(state: State, file: int, index: int) -> None:
    """A part of the 2 MiB around page `index` is about to move alone: nothing is one entry or one mapping from here on."""
    row = block_row(state, file, index)
    guest = int(state.files[file].guest)
    if state.files[file].kind != KIND_GUEST_MEMFD:
        return
    if state.hardware[row].marks & RMP_WHOLE:
        smash(state, file, row)
    if state.file_blocks[row].marks & HUGE_MAPPED:
        if guest == GUEST_TDX:
            demote(state, file, row, CAUSE_POPULATE)
        elif decisions.zaps_exactly(guest, False):
            shatter(state, row, CAUSE_POPULATE)
        else:
            zap_huge(state, row, CAUSE_POPULATE)
            mend(state, file, row, index)
