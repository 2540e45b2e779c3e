"""SEV-SNP: the RMP entries behind a guest's private pages (G81 to G83; arch/x86/kvm/svm/sev.c, arch/x86/virt/svm/sev.c, 7.3).

A frame of a private page is assigned to its guest, by an entry of its own or by one for 2 MiB, and validated or not. What is
kept here is kept by page of the file; frames that left it while somebody held them are remembered in their blocks and frames.
"""

from gmemlab.core import layout
from gmemlab.core.frames import folio_busy, folio_head
from gmemlab.core.guestmap import limiting_term, map_base_pages, map_huge, map_in_use, zap_huge
from gmemlab.core.hardware.accepted import count_accepted, set_accepted
from gmemlab.core.hardware.counts import (
    DIRECT_MAP_1G,
    DIRECT_MAP_2M,
    FAULT_4K,
    LAUNCH_UPDATE,
    PSC_ENTRY,
    PSC_REQUEST,
    PSMASH,
    PVALIDATE_2M,
    PVALIDATE_4K,
    RESCIND_2M,
    RESCIND_4K,
    RMP_FAULT,
    RMPUPDATE_PRIVATE_2M,
    RMPUPDATE_PRIVATE_4K,
    RMPUPDATE_SHARED_2M,
    RMPUPDATE_SHARED_4K,
    SIZE_MISMATCH,
    UNACCEPTED,
    note,
)
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_LAUNCH,
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_ACCEPT,
    CAUSE_CONVERT,
    GIGA_BLOCKS,
    HUGE_MAPPED,
    RMP_WHOLE,
    SPLIT,
    TOUCH,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, frame_of, open_details
from gmemlab.core.parts import part
from gmemlab.core.state import State

PSC_MAX_COUNT = 64  # entries of one request of a Linux guest (W21); the GHCB has room for 253
ACCEPT_CHUNK = 1024  # pages that a Linux guest accepts at a time (W19)


@jit
def request_changes(state: State, file: int, first: int, end: int, huge: bool) -> None:
    """The guest asks for a change of state: one entry for each page, or (`huge`) for each aligned 2 MiB in the range."""
    entries = end - first
    if huge:
        begin = (first + BLOCK_PAGES - 1) & ~(BLOCK_PAGES - 1)
        blocks = max(0, (end - begin) >> BLOCK_ORDER)
        entries -= blocks * (BLOCK_PAGES - 1)
    note(state, file, PSC_ENTRY, entries)
    note(state, file, PSC_REQUEST, (entries + PSC_MAX_COUNT - 1) // PSC_MAX_COUNT)


@jit
def request_accepts(state: State, file: int, first: int, end: int, accept: int) -> None:
    """The requests that go before an accept, which comes in chunks of 4 MiB."""
    while first < end:
        stop = min(end, (first | (ACCEPT_CHUNK - 1)) + 1)
        request_changes(state, file, first, stop, accept == ACCEPT_2M)
        first = stop


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
def assign_whole(state: State, file: int, row: int) -> None:
    """Give a block to its guest by one 2 MiB entry."""
    hardware = state.hardware[row]
    hardware.nr_assigned = BLOCK_PAGES
    hardware.marks |= RMP_WHOLE
    block = state.file_blocks[row]
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(BLOCK_PAGES):
            state.pages[base + offset].assigned = 1
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
            page = state.pages[base + offset]
            if page.assigned == 0:
                page.assigned = 1
                hardware.nr_assigned += 1
                split_direct_map(state, file, int(page.frame) >> BLOCK_ORDER)
    note(state, file, RMPUPDATE_PRIVATE_4K, int(hardware.nr_assigned) - before)


@jit
def smash(state: State, file: int, row: int) -> None:
    """Make 512 entries of one of 2 MiB."""
    state.hardware[row].marks &= ~RMP_WHOLE
    note(state, file, PSMASH, 1)


@jit
def fault(state: State, file: int, index: int, begin: int, end: int) -> None:
    """The guest touches the private pages [begin, end) of the block at page `index`.

    First they are prepared (`sev_gmem_prepare`): by one entry if the folio and the memslot hold all of the 2 MiB and none of it
    is assigned (G81). Then they are mapped at the level of the entry, or lower; lower, the access faults once more, and smashes
    the entry (`sev_handle_rmp_fault`).
    """
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    hardware = state.hardware[row]
    term = limiting_term(state, file, index + begin, TOUCH)
    if hardware.nr_assigned == 0 and term != layout.TERM_FOLIO and term != layout.TERM_SLOT:
        assign_whole(state, file, row)
    else:
        assign_pages(state, file, row, begin, end)
    if hardware.marks & RMP_WHOLE:
        if term == layout.TERM_NONE:
            if block.nr_mapped < BLOCK_PAGES:
                map_huge(state, file, row)
            return
        note(state, file, RMP_FAULT, 1)
        smash(state, file, row)
    note(state, file, FAULT_4K, map_base_pages(state, row, begin, end))


@jit
def refault(state: State, file: int, row: int, index: int) -> None:
    """What is in use of the zapped block at page `index` faults back, at the level that is left."""
    if state.hardware[row].nr_accepted == 0:
        return
    offset = 0
    base = open_details(state, row)
    while state.pages[base + offset].accepted == 0:
        offset += 1
    if state.hardware[row].marks & RMP_WHOLE:
        fault(state, file, index, offset, offset + 1)
    if state.file_blocks[row].marks & HUGE_MAPPED == 0:
        map_in_use(state, file, row)


@jit
def smash_for_guest(state: State, file: int, row: int, cause: int) -> None:
    """PVALIDATE of 4 KiB in a 2 MiB entry: KVM smashes it and takes the 2 MiB mapping away (G83)."""
    note(state, file, RMP_FAULT, 1)
    smash(state, file, row)
    if state.file_blocks[row].marks & HUGE_MAPPED:
        zap_huge(state, row, cause)


@jit
def launch(state: State, file: int, index: int, begin: int, end: int) -> None:
    """SNP_LAUNCH_UPDATE: 4 KiB entries, validated by the firmware.

    From a source or in place (G52): the RMP cannot tell.
    """
    row = block_row(state, file, index)
    fresh = end - begin - count_accepted(state, row, begin, end)
    if fresh == 0:
        return
    if state.hardware[row].marks & RMP_WHOLE:
        smash_for_guest(state, file, row, CAUSE_ACCEPT)
    assign_pages(state, file, row, begin, end)
    note(state, file, LAUNCH_UPDATE, fresh)
    set_accepted(state, row, begin, end, 1)


@jit
def validate(state: State, file: int, index: int, begin: int, end: int, huge: bool) -> None:
    """PVALIDATE of the mapped pages [begin, end), those that are not yet: with 2 MiB first, if nothing of it is validated."""
    row = block_row(state, file, index)
    fresh = end - begin - count_accepted(state, row, begin, end)
    if fresh == 0:
        return
    if huge and fresh == BLOCK_PAGES:
        if state.file_blocks[row].marks & HUGE_MAPPED:
            note(state, file, PVALIDATE_2M, 1)
            set_accepted(state, row, begin, end, 1)
            return
        note(state, file, SIZE_MISMATCH, 1)
    elif state.hardware[row].marks & RMP_WHOLE:
        smash_for_guest(state, file, row, CAUSE_ACCEPT)
        note(state, file, FAULT_4K, map_base_pages(state, row, begin, end))
    note(state, file, PVALIDATE_4K, fresh)
    set_accepted(state, row, begin, end, 1)


@part
def access(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block; or its VMM launches it with them."""
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    if accept == ACCEPT_LAUNCH:
        launch(state, file, first, begin, stop)
    else:
        fault(state, file, first, begin, stop)
        if accept == TOUCH:
            fresh = stop - begin - count_accepted(state, row, begin, stop)
            if fresh:
                note(state, file, UNACCEPTED, fresh)
                set_accepted(state, row, begin, stop, 1)
        else:
            validate(state, file, first, begin, stop, accept == ACCEPT_2M)
    mend(state, file, first)


@jit
def mend(state: State, file: int, index: int) -> None:
    """After all that was done to the block at page `index`: what was in use of a zapped 2 MiB mapping faults back."""
    row = block_row(state, file, index)
    hardware = state.hardware[row]
    if hardware.marks & layout.ZAPPED:
        hardware.marks &= ~layout.ZAPPED
        refault(state, file, row, index & ~(BLOCK_PAGES - 1))


@part
def rescind(state: State, file: int, index: int, end: int) -> None:
    """Before private pages [index, end) of one block become shared, the guest takes their validation back."""
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    accepted = count_accepted(state, row, begin, stop)
    if accepted == 0:
        return
    if accepted == BLOCK_PAGES and state.file_blocks[row].marks & HUGE_MAPPED:
        note(state, file, RESCIND_2M, 1)
    else:
        if accepted == BLOCK_PAGES:
            note(state, file, SIZE_MISMATCH, 1)
        if state.hardware[row].marks & RMP_WHOLE:
            smash_for_guest(state, file, row, CAUSE_CONVERT)
        note(state, file, RESCIND_4K, accepted)
    set_accepted(state, row, begin, stop, 0)


@jit
def count_assigned(state: State, row: int, begin: int, end: int) -> int:
    """How many of the pages [begin, end) of a block are assigned."""
    assigned = int(state.hardware[row].nr_assigned)
    if assigned == 0 or end - begin == BLOCK_PAGES:
        return assigned
    block = state.file_blocks[row]
    if block.detail == 0:
        return end - begin
    base = int(block.detail) * BLOCK_PAGES
    found = 0
    for offset in range(begin, end):
        found += int(state.pages[base + offset].assigned)
    return found


@jit
def clear_assigned(state: State, row: int, begin: int, end: int) -> None:
    """The pages [begin, end) of a block are neither assigned nor validated."""
    set_accepted(state, row, begin, end, 0)
    hardware = state.hardware[row]
    block = state.file_blocks[row]
    if block.detail == 0 and end - begin == BLOCK_PAGES:
        hardware.nr_assigned = 0
        return
    base = open_details(state, row)
    for offset in range(begin, end):
        page = state.pages[base + offset]
        hardware.nr_assigned -= page.assigned
        page.assigned = 0


@part
def take_back(state: State, file: int, index: int, end: int, busy: bool) -> int:
    """Pages [index, end) of one block are made shared, or leave their file (`sev_gmem_invalidate`).

    By one RMPUPDATE if one entry has all of them; a larger entry is smashed. A busy folio stays assigned until it is freed.
    Returns its assigned frames then, as -1 where one entry has them; else 0.
    """
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    assigned = count_assigned(state, row, begin, stop)
    if assigned == 0:
        return 0
    hardware = state.hardware[row]
    whole = bool(hardware.marks & RMP_WHOLE) and assigned == BLOCK_PAGES
    if hardware.marks & RMP_WHOLE and not whole:
        smash(state, file, row)
    if not whole and not busy:
        split_direct_maps(state, file, row, begin, stop)
    hardware.marks &= ~RMP_WHOLE
    clear_assigned(state, row, begin, stop)
    if busy:
        return -1 if whole else assigned
    make_shared(state, file, -1 if whole else assigned)
    return 0


@jit
def split_direct_maps(state: State, file: int, row: int, begin: int, end: int) -> None:
    """`split_direct_map` of all that lies behind the assigned pages [begin, end) of a block."""
    block = state.file_blocks[row]
    if block.block:
        split_direct_map(state, file, int(block.block))
        return
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(begin, end):
        page = state.pages[base + offset]
        if page.assigned:
            split_direct_map(state, file, int(page.frame) >> BLOCK_ORDER)


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
    page = state.pages[open_details(state, row) + (index & (BLOCK_PAGES - 1))]
    hardware = state.hardware[row]
    if hardware.marks & RMP_WHOLE or folio_busy(state, pfn):
        leave(state, file, index, 0)
        return
    if page.assigned == 0:
        return
    page.assigned = 0
    hardware.nr_assigned -= 1
    hardware.nr_accepted -= page.accepted
    page.accepted = 0
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
