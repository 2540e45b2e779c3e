"""SEV-SNP: what a guest's accesses, accepts and conversions make of its RMP entries and mappings (G81, G83, W18 to W22)."""

from gmemlab.core import layout
from gmemlab.core.guestmap import limiting_term, map_base_pages, map_huge, map_in_use, zap_huge
from gmemlab.core.hardware.bits import count_marked, mark
from gmemlab.core.hardware.counts import (
    FAULT_4K,
    LAUNCH_IN_PLACE,
    LAUNCH_UPDATE,
    PSC_ENTRY,
    PSC_REQUEST,
    PVALIDATE_2M,
    PVALIDATE_4K,
    RESCIND_2M,
    RESCIND_4K,
    RMP_FAULT,
    SIZE_MISMATCH,
    UNACCEPTED,
    note,
    note_hazard,
)
from gmemlab.core.hardware.rmp import assign_pages, assign_whole, smash
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    ACCEPT_2M,
    ACCEPT_LAUNCH,
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_ACCEPT,
    CAUSE_CONVERT,
    HUGE_MAPPED,
    RMP_WHOLE,
    TOUCH,
)
from gmemlab.core.mapping import block_row, open_details
from gmemlab.core.page_details import ACCEPTED, MAPPED, has_mark
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
def fault(state: State, file: int, index: int, begin: int, end: int) -> None:
    """The guest touches the private pages [begin, end) of the block at page `index`.

    First they are prepared (`sev_gmem_prepare`): by one entry if the folio and the memslot hold all of the 2 MiB and none of it
    is assigned (G81). Then they are mapped at the level of the entry, or lower; lower, the access faults once more, and smashes
    the entry (`sev_handle_rmp_fault`), which zaps what was just mapped (G83).
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
        note(state, file, FAULT_4K, 1)
        smash(state, file, row)
    note(state, file, FAULT_4K, map_base_pages(state, row, begin, end))


@jit
def refault(state: State, file: int, row: int, index: int) -> None:
    """What is in use of the zapped block at page `index` faults back, at the level that is left."""
    if state.hardware[row].nr_accepted == 0:
        return
    offset = 0
    base = open_details(state, row)
    while not has_mark(state, base + offset, ACCEPTED):
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
def launch(state: State, file: int, index: int, begin: int, end: int, operation: int) -> None:
    """SNP_LAUNCH_UPDATE: 4 KiB entries, validated by the firmware. The RMP cannot tell the two ways of it (G52)."""
    row = block_row(state, file, index)
    fresh = end - begin - count_marked(state, row, begin, end, ACCEPTED)
    if fresh == 0:
        return
    if state.hardware[row].marks & RMP_WHOLE:
        smash_for_guest(state, file, row, CAUSE_ACCEPT)
    assign_pages(state, file, row, begin, end)
    note(state, file, operation, fresh)
    mark(state, row, begin, end, ACCEPTED, 1)


@jit
def validate(state: State, file: int, index: int, begin: int, end: int, huge: bool) -> None:
    """PVALIDATE of the mapped pages [begin, end), those that are not yet: with 2 MiB first, if nothing of it is validated."""
    row = block_row(state, file, index)
    fresh = end - begin - count_marked(state, row, begin, end, ACCEPTED)
    if fresh == 0:
        return
    if huge and fresh == BLOCK_PAGES:
        if state.file_blocks[row].marks & HUGE_MAPPED:
            note(state, file, PVALIDATE_2M, 1)
            mark(state, row, begin, end, ACCEPTED, 1)
            return
        note(state, file, SIZE_MISMATCH, 1)
    elif state.hardware[row].marks & RMP_WHOLE:
        smash_for_guest(state, file, row, CAUSE_ACCEPT)
        note(state, file, FAULT_4K, map_base_pages(state, row, begin, end))
    note(state, file, PVALIDATE_4K, fresh)
    mark(state, row, begin, end, ACCEPTED, 1)


@part
def access(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block; or its VMM launches it with them."""
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    if accept >= ACCEPT_LAUNCH:
        launch(state, file, first, begin, stop, LAUNCH_UPDATE if accept == ACCEPT_LAUNCH else LAUNCH_IN_PLACE)
    else:
        fault(state, file, first, begin, stop)
        if accept == TOUCH:
            fresh = stop - begin - count_marked(state, row, begin, stop, ACCEPTED)
            if fresh:
                note(state, file, UNACCEPTED, fresh)
                note_hazard(state, layout.HAZARD_UNACCEPTED, fresh)
                mark(state, row, begin, stop, ACCEPTED, 1)
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


@jit
def fault_accepted(state: State, file: int, index: int, begin: int, end: int) -> None:
    """The guest's PVALIDATE reaches the accepted pages [begin, end) of the block at page `index`: unmapped ones fault first.

    So the launch image, which the firmware validates, and which no table maps before the guest comes to it.
    """
    row = block_row(state, file, index)
    block = state.file_blocks[row]
    if block.nr_mapped == BLOCK_PAGES:
        return
    if block.detail == 0:
        fault(state, file, index, begin, end)
        return
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(begin, end):
        if has_mark(state, base + offset, ACCEPTED) and not has_mark(state, base + offset, MAPPED):
            fault(state, file, index, offset, offset + 1)


@part
def rescind(state: State, file: int, index: int, end: int) -> None:
    """Before private pages [index, end) of one block become shared, the guest takes their validation back."""
    row = block_row(state, file, index)
    first = index & ~(BLOCK_PAGES - 1)
    begin, stop = index - first, end - first
    accepted = count_marked(state, row, begin, stop, ACCEPTED)
    if accepted == 0:
        return
    fault_accepted(state, file, first, begin, stop)
    if accepted == BLOCK_PAGES and state.file_blocks[row].marks & HUGE_MAPPED:
        note(state, file, RESCIND_2M, 1)
    else:
        if accepted == BLOCK_PAGES:
            note(state, file, SIZE_MISMATCH, 1)
        if state.hardware[row].marks & RMP_WHOLE:
            smash_for_guest(state, file, row, CAUSE_CONVERT)
            fault_accepted(state, file, first, begin, stop)
        note(state, file, RESCIND_4K, accepted)
    mark(state, row, begin, stop, ACCEPTED, 0)
