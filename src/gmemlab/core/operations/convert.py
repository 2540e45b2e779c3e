"""Conversion between private and shared: two sources of memory, or in place (G38 to G50, G72, K4, K12)."""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.frames import folio_busy, folio_head, folio_order
from gmemlab.core.hardware import rmp, snp
from gmemlab.core.hardware.counts import CONVERT, CONVERT_PAGE, MAP_GPA, note
from gmemlab.core.hardware.zap import mend, unmap
from gmemlab.core.hostmap import unmap_range_from_host
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_CONVERT,
    CONVERT_NONE,
    CONVERT_TWO_SOURCES,
    GIGA_ORDER,
    GUEST_SNP,
    GUEST_TDX,
    KIND_GUEST_MEMFD,
    SOURCE_POOL,
)
from gmemlab.core.mapping import block_row, block_span, frame_of, scramble, set_shared, settle
from gmemlab.core.operations.access import run_of_attribute
from gmemlab.core.operations.checks import check_within
from gmemlab.core.operations.punch import punch
from gmemlab.core.operations.split import merge_block, merge_giga, split_folio, split_unit
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def share_block(state: State, file: int, row: int, index: int, end: int) -> None:
    """Pages [index, end) of one block become shared: the guest gives them up, KVM zaps and, in place, takes them back (G47)."""
    record = state.files[file]
    if record.guest == GUEST_SNP:
        snp.rescind(state, file, index, end)
    unmap(state, file, row, index, end, CAUSE_CONVERT)
    if record.guest == GUEST_SNP and decisions.shares_in_place(state.policies[record.policy]):
        rmp.take_back(state, file, index, end, False)


@jit
def ask(state: State, file: int, first: int, end: int) -> None:
    """The guest asks its VMM for a conversion, page-state changes under SNP, MapGPA under TDX; and the VMM asks KVM."""
    guest = state.files[file].guest
    note(state, file, CONVERT, 1)
    if state.policies[state.files[file].policy].conversion == CONVERT_TWO_SOURCES:
        note(state, file, CONVERT_PAGE, end - first)
    if guest == GUEST_SNP:
        snp.request_changes(state, file, first, end, True)
    elif guest == GUEST_TDX:
        note(state, file, MAP_GPA, 1)


@part
def set_attributes(state: State, file: int, first: int, end: int, shared: int) -> None:
    """Give pages [first, end) an attribute. What was private and becomes shared is unmapped from the guest (G47)."""
    index = first
    while index < end:
        row = block_row(state, file, index)
        span = block_span(state, file, index)
        begin = index & ~(BLOCK_PAGES - 1)
        stop = min(end, begin + span)
        if shared:
            share_block(state, file, row, index, stop)
        set_shared(state, row, index - begin, stop - begin, span, shared)
        if not decisions.keeps_contents(int(state.files[file].guest)):
            scramble(state, row, index - begin, stop - begin)
        mend(state, file, row, index)
        settle(state, file, index)
        index = stop


@jit
def first_busy(state: State, file: int, first: int, end: int) -> int:
    """First present page in [first, end), shared or private, whose folio has pins or references; or `end` (G45)."""
    index = first
    while index < end:
        row = block_row(state, file, index)
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        block = state.file_blocks[row]
        whole = block.block and state.blocks[block.block].kind != layout.SPLIT
        if whole and folio_busy(state, frame_of(state, row, index)):
            return index
        if block.nr_present and not whole:
            while index < stop:
                pfn = frame_of(state, row, index)
                if pfn and folio_busy(state, pfn):
                    return index
                index += 1
        index = stop
    return end


@part
def merge_range(state: State, file: int, first: int, end: int) -> None:
    """Merge what became wholly private: 2 MiB by 2 MiB, then 1 GiB by 1 GiB (G72)."""
    policy = state.policies[state.files[file].policy]
    if not decisions.merges_after_conversion(policy):
        return
    if policy.unit != GIGA_ORDER or decisions.splits_giga_to_blocks(policy):
        index = first & ~(BLOCK_PAGES - 1)
        while index < end:
            merge_block(state, file, index, CAUSE_CONVERT)
            index += BLOCK_PAGES
    if policy.unit == GIGA_ORDER:
        index = folio_head(first, GIGA_ORDER)
        while index < end:
            merge_giga(state, file, index, CAUSE_CONVERT)
            index += 1 << GIGA_ORDER


@jit
def to_private_in_place(state: State, file: int, first: int, end: int) -> tuple[int, int]:
    """Make a range private: checked as a whole, or huge page by huge page for pool files (G45, G46, G72).

    The VMM's mappings go before the check, and do not come back where that fails (G46).
    """
    policy = state.policies[state.files[file].policy]
    step = 1 << int(policy.unit) if policy.source == SOURCE_POOL else end
    index = first
    while index < end:
        stop = min(end, (index // step + 1) * step)
        unmap_range_from_host(state, file, index, stop)
        busy = first_busy(state, file, index, stop)
        if busy < stop:
            state.tally[layout.TALLY_EAGAIN] += 1
            return errno.EAGAIN, busy - first
        set_attributes(state, file, index, stop, 0)
        merge_range(state, file, index, stop)
        index = stop
    return 0, end - first


@part
def split_for_sharing(state: State, file: int, index: int, end: int) -> tuple[int, int]:
    """Split the folio at page `index` so that its pages up to `end` are base pages. Returns (errno, next page).

    Busy: EAGAIN. No page structs to be had: ENOMEM (G74).
    """
    row = block_row(state, file, index)
    pfn = frame_of(state, row, index)
    policy = state.policies[state.files[file].policy]
    units = decisions.works_in_units(policy)
    if pfn == 0:
        return 0, index + 1 if state.file_blocks[row].nr_present else (index | (BLOCK_PAGES - 1)) + 1
    order = folio_order(state, pfn)
    if order == 0:
        if state.blocks[pfn >> BLOCK_ORDER].kind == layout.UNIFORM and state.file_blocks[row].block:
            return 0, (index | (BLOCK_PAGES - 1)) + 1
        return 0, index + 1
    after = folio_head(index, order) + (1 << order)
    stop = min(end, after)
    if folio_busy(state, pfn):
        state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_CONVERT] += 1
        state.tally[layout.TALLY_EAGAIN] += 1
        return errno.EAGAIN, index
    if not units:
        split_folio(state, file, index, index, stop, CAUSE_CONVERT)
    elif not split_unit(state, file, index, stop, order, False, CAUSE_CONVERT):
        return errno.ENOMEM, index
    return 0, stop


@jit
def to_shared_in_place(state: State, file: int, first: int, end: int) -> tuple[int, int]:
    """Make a range shared, folio by folio: huge folios are split first, which busy ones refuse (K4)."""
    index = first
    error = 0
    while index < end and error == 0:
        error, after = split_for_sharing(state, file, index, end)
        index = min(after, end)
    set_attributes(state, file, first, index, 1)
    return error, index - first


@jit
def convert_two_sources(state: State, file: int, first: int, end: int, shared: bool) -> None:
    """Change the attribute of a range; then the VMM punches the side that nobody uses any more, as its policy says."""
    record = state.files[file]
    set_attributes(state, file, first, end, 1 if shared else 0)
    if decisions.vmm_punches(state.policies[record.policy], shared):
        other = file if shared else int(record.shared_file)
        error, _ = punch(state, other, first, end - first)
        if error:
            state.tally[layout.TALLY_VMM_PUNCH_FAILED] += 1


@part
def convert(state: State, file: int, first: int, count: int, shared: bool) -> tuple[int, int]:
    """Convert pages [first, first + count) to shared or to private. Unallocated pages convert too (G48)."""
    record = state.files[file]
    policy = state.policies[record.policy]
    if record.kind != KIND_GUEST_MEMFD or policy.conversion == CONVERT_NONE:
        return errno.EOPNOTSUPP, 0
    if check_within(state, file, first, count, 1):
        return errno.EINVAL, 0  # here also what overflows (G42)
    end = first + count
    if run_of_attribute(state, file, first, end, shared) == end:
        return 0, count
    state.tally[layout.TALLY_CONVERTED] += 1
    ask(state, file, first, end)
    if policy.conversion == CONVERT_TWO_SOURCES:
        convert_two_sources(state, file, first, end, shared)
        return 0, count
    if shared:
        return to_shared_in_place(state, file, first, end)
    return to_private_in_place(state, file, first, end)
