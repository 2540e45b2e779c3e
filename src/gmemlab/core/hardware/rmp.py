"""The RMP: which frames are assigned to an SNP guest, each by an entry of its own or 512 by one (G81, G82).

A frame of a private page is assigned and validated, or not; what is kept here is kept by page of the file. Frames that left it
while somebody held them are remembered in their blocks and frames. (arch/x86/virt/svm/sev.c and arch/x86/kvm/svm/sev.c, 6.18.)
"""

from gmemlab.core import layout
from gmemlab.core.frames import folio_busy, folio_head
from gmemlab.core.hardware.bits import count_marked, mark
from gmemlab.core.hardware.counts import (
    DIRECT_MAP_1G,
    DIRECT_MAP_2M,
    PSMASH,
    RMPUPDATE_PRIVATE_2M,
    RMPUPDATE_PRIVATE_4K,
    RMPUPDATE_SHARED_2M,
    RMPUPDATE_SHARED_4K,
    note,
)
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, GIGA_BLOCKS, RMP_WHOLE, SPLIT
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, open_details
from gmemlab.core.page_details import ACCEPTED, ASSIGNED, has_mark, put_mark
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def split_direct_map(state: State, file: int, host_block: int) -> None:
    """An RMPUPDATE of 4 KiB splits the kernel's own mapping, and nothing puts it together again (K11).

    To private or to shared: `rmpupdate` asks `adjust_direct_map` for both.
    """
    record = state.blocks[host_block]
    if record.direct & layout.DIRECT_2M:
        return
    record.direct |= layout.DIRECT_2M
    note(state, file, DIRECT_MAP_2M, 1)
    last = state.blocks[min(host_block | (GIGA_BLOCKS - 1), int(state.host[0].nr_blocks))]
    if last.direct & layout.DIRECT_1G == 0:
        last.direct |= layout.DIRECT_1G
        note(state, file, DIRECT_MAP_1G, 1)


@jit
def split_direct_maps(state: State, file: int, row: int, begin: int, end: int) -> None:
    """`split_direct_map` of all that lies behind the assigned pages [begin, end) of a block."""
    block = state.file_blocks[row]
    if block.block:
        split_direct_map(state, file, int(block.block))
        return
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(begin, end):
        if has_mark(state, base + offset, ASSIGNED):
            split_direct_map(state, file, frame_of(state, row, offset) >> BLOCK_ORDER)


@jit
def assign_whole(state: State, file: int, row: int) -> None:
    """Give a block to its guest by one 2 MiB entry."""
    hardware = state.hardware[row]
    hardware.nr_assigned = BLOCK_PAGES
    hardware.marks |= RMP_WHOLE
    block = state.file_blocks[row]
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            put_mark(state, base + offset, ASSIGNED, 1)
    note(state, file, RMPUPDATE_PRIVATE_2M, 1)


@jit
def assign_pages(state: State, file: int, row: int, begin: int, end: int) -> None:
    """Give the pages [begin, end) of a block to their guest by 4 KiB entries, those that are not yet."""
    hardware = state.hardware[row]
    before = int(hardware.nr_assigned)
    if before == BLOCK_PAGES:
        return
    block = state.file_blocks[row]
    if block.detail == 0 and end - begin == BLOCK_PAGES:
        hardware.nr_assigned = BLOCK_PAGES
        split_direct_map(state, file, int(block.block))
    else:
        base = open_details(state, row)
        for offset in range(begin, end):
            if not has_mark(state, base + offset, ASSIGNED):
                put_mark(state, base + offset, ASSIGNED, 1)
                hardware.nr_assigned += 1
                split_direct_map(state, file, frame_of(state, row, offset) >> BLOCK_ORDER)
    note(state, file, RMPUPDATE_PRIVATE_4K, int(hardware.nr_assigned) - before)


@jit
def smash(state: State, file: int, row: int) -> None:
    """Make 512 entries of one of 2 MiB."""
    state.hardware[row].marks &= ~RMP_WHOLE
    note(state, file, PSMASH, 1)


@part
def take_back(state: State, file: int, index: int, end: int, busy: bool) -> int:
    """Pages [index, end) of one block are made shared, or leave their file (`sev_gmem_invalidate`).

    By one RMPUPDATE if one entry has all of them; a larger entry is smashed. A busy folio stays assigned until it is freed.
    Returns its assigned frames then, as -1 where one entry has them; else 0.
    """
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    assigned = count_marked(state, row, begin, stop, ASSIGNED)
    if assigned == 0:
        return 0
    hardware = state.hardware[row]
    whole = bool(hardware.marks & RMP_WHOLE) and assigned == BLOCK_PAGES
    if hardware.marks & RMP_WHOLE and not whole:
        smash(state, file, row)
    if not whole and not busy:
        split_direct_maps(state, file, row, begin, stop)
    hardware.marks &= ~RMP_WHOLE
    mark(state, row, begin, stop, ACCEPTED, 0)
    mark(state, row, begin, stop, ASSIGNED, 0)
    if busy:
        return -1 if whole else assigned
    make_shared(state, file, -1 if whole else assigned)
    return 0


@jit
def make_shared(state: State, file: int, assigned: int) -> None:
    """RMPUPDATE to shared: of so many 4 KiB entries, or (-1) of one of 2 MiB."""
    if assigned < 0:
        note(state, file, RMPUPDATE_SHARED_2M, 1)
    else:
        note(state, file, RMPUPDATE_SHARED_4K, assigned)


@part
def leave(state: State, file: int, base: int, order: int) -> None:
    """The folio at page `base` is about to leave its file. If it is busy, its frames or blocks remember their entries."""
    pfn = frame_of(state, block_row(state, file, base), base)
    busy = folio_busy(state, pfn) > 0
    if order < BLOCK_ORDER:
        kept = take_back(state, file, base, base + (1 << order), busy)
        if busy:
            state.frames[slot_of(state, pfn)].index = kept
            state.host[0].kept_entries += kept
        return
    for step in range(1 << (order - BLOCK_ORDER)):
        index = base + (step << BLOCK_ORDER)
        kept = take_back(state, file, index, index + BLOCK_PAGES, busy)
        if busy:
            state.blocks[(pfn >> BLOCK_ORDER) + step].assigned = kept
            state.host[0].kept_entries += BLOCK_PAGES if kept < 0 else kept


@inline
def leave_base_page(state: State, file: int, row: int, index: int, pfn: int) -> None:
    """`leave` for a base page whose file block and frame are at hand."""
    slot = open_details(state, row) + (index & (BLOCK_PAGES - 1))
    hardware = state.hardware[row]
    if hardware.marks & RMP_WHOLE or folio_busy(state, pfn):
        leave(state, file, index, 0)
        return
    if not has_mark(state, slot, ASSIGNED):
        return
    put_mark(state, slot, ASSIGNED, 0)
    hardware.nr_assigned -= 1
    hardware.nr_accepted -= has_mark(state, slot, ACCEPTED)
    put_mark(state, slot, ACCEPTED, 0)
    split_direct_map(state, file, pfn >> BLOCK_ORDER)
    note(state, file, RMPUPDATE_SHARED_4K, 1)


@part
def leave_orphan(state: State, file: int, pfn: int, order: int) -> None:
    """The last hold on a folio that left a file goes: its frames are made shared before they are freed."""
    head = folio_head(pfn, order)
    if order >= BLOCK_ORDER:
        for block in range(head >> BLOCK_ORDER, (head >> BLOCK_ORDER) + (1 << (order - BLOCK_ORDER))):
            kept = int(state.blocks[block].assigned)
            if kept > 0:
                split_direct_map(state, file, block)
            make_shared(state, file, kept)
            state.host[0].kept_entries -= BLOCK_PAGES if kept < 0 else kept
            state.blocks[block].assigned = 0
    elif state.blocks[head >> BLOCK_ORDER].kind == SPLIT:
        frame = state.frames[slot_of(state, head)]
        if frame.index:
            split_direct_map(state, file, head >> BLOCK_ORDER)
            make_shared(state, file, int(frame.index))
            state.host[0].kept_entries -= frame.index
            frame.index = 0
