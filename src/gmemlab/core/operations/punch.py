"""Punching holes: what a VMM's fallocate(PUNCH_HOLE) frees, zeroes, refuses or leaves (G22, K1, K2, L13, L14, L16, L18)."""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.buddy import free_block
from gmemlab.core.decisions import PART_DEFER, PART_DROP, PART_KEEP, PART_SPLIT, PART_STALE, PART_ZERO
from gmemlab.core.frames import defer_page, folio_busy, folio_head, folio_order, leave_folio
from gmemlab.core.hardware import rmp
from gmemlab.core.hardware.bits import count_marked
from gmemlab.core.hardware.counts import HOST_WRITE, note, note_hazard
from gmemlab.core.hardware.zap import mend, unmap
from gmemlab.core.hostmap import unmap_from_host
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CAUSE_PUNCH,
    GUEST_SNP,
    KIND_GUEST_MEMFD,
    KIND_HUGETLB,
    KIND_SHMEM,
    PAGE_TABLE,
    PUNCH_DEFER,
    PUNCH_KEEP,
    PUNCH_ZERO,
    STALE,
    TALLY_PRESENT,
    UNIFORM,
    UNSPECIFIED,
    USED,
    WHOLE,
    ZEROED,
)
from gmemlab.core.mapping import (
    block_row,
    empty_block,
    frame_of,
    open_details,
    remove_pages,
    set_content,
    settle,
)
from gmemlab.core.operations.checks import check_range
from gmemlab.core.operations.drop import drop_base_page, drop_base_pages, drop_folio
from gmemlab.core.operations.release import release_unit
from gmemlab.core.operations.split import split_folio
from gmemlab.core.page_details import ASSIGNED, SHARED, content_at, has_mark
from gmemlab.core.parts import part
from gmemlab.core.split_queue import enqueue_zeros
from gmemlab.core.state import State


@jit
def was_used(content: int) -> bool:
    """Whether a page of this content makes its folio dirty."""
    return content == USED or content == STALE or content == UNSPECIFIED


@jit
def count_private(state: State, row: int, begin: int, end: int) -> int:
    """Present private pages among [begin, end) of a file block (offsets within it)."""
    block = state.file_blocks[row]
    if block.detail == 0:
        return end - begin if block.nr_present and block.nr_shared == 0 else 0
    base = int(block.detail) * BLOCK_PAGES
    found = 0
    for offset in range(begin, end):
        found += 1 if frame_of(state, row, offset) and not has_mark(state, base + offset, SHARED) else 0
    return found


@jit
def note_zeroing(state: State, file: int, begin: int, end: int) -> None:
    """The kernel writes zeros to pages [begin, end) of one block: private ones are not its own to write (K1, T9).

    The RMP of SNP has a frame until it is freed, also when the page has just become shared; elsewhere the attribute decides.
    """
    record = state.files[file]
    if record.kind == KIND_GUEST_MEMFD and record.guest != layout.GUEST_PLAIN:
        row = block_row(state, file, begin)
        first = begin & ~(BLOCK_PAGES - 1)
        if record.guest == GUEST_SNP:
            pages = count_marked(state, row, begin - first, end - first, ASSIGNED)
        else:
            pages = count_private(state, row, begin - first, end - first)
        note(state, file, HOST_WRITE, pages)
        note_hazard(state, layout.HAZARD_HOST_WRITE, pages)


@jit
def is_dirty(state: State, row: int, begin: int, end: int) -> bool:
    """Whether any page [begin, end) of a file block (offsets within it) was used since it was allocated (K2)."""
    block = state.file_blocks[row]
    if block.detail == 0:
        return was_used(int(block.content))
    base = int(block.detail) * BLOCK_PAGES
    for offset in range(begin, end):
        if was_used(content_at(state, base + offset)):
            return True
    return False


@jit
def note_table(state: State, row: int, whole: bool) -> None:
    """Giving back a part of an anonymous block leaves it a table of 4 KiB entries; giving back all of it takes that away.

    Only one call on all of the 2 MiB does (CONFIG_PT_RECLAIM, 6.14; before, the table stayed until the mapping went).
    """
    block = state.file_blocks[row]
    block.marks = block.marks & ~PAGE_TABLE if whole else block.marks | PAGE_TABLE


@part
def defer_pages(state: State, file: int, begin: int, end: int) -> None:
    """Unmap the present pages [begin, end) of one block of an anonymous file; folios go when their last page goes."""
    row = block_row(state, file, begin)
    open_details(state, row)
    note_table(state, row, end - begin == BLOCK_PAGES)
    for index in range(begin, end):
        offset = index & (BLOCK_PAGES - 1)
        pfn = frame_of(state, row, offset)
        if pfn:
            order = folio_order(state, pfn)
            remove_pages(state, row, offset, offset + 1)
            state.tally[TALLY_PRESENT + order] -= 1
            if order == 0:
                leave_folio(state, pfn, 0)
            else:
                defer_page(state, pfn)


@part
def punch_part(state: State, file: int, head: int, order: int, begin: int, end: int) -> None:
    """Punch pages [begin, end), a proper part of the folio at page `head`, by the policy's rule."""
    row = block_row(state, file, head)
    record = state.files[file]
    policy = state.policies[record.policy]
    pfn = frame_of(state, row, head)
    first = head & ~(BLOCK_PAGES - 1)
    dirty = is_dirty(state, row, head - first, head - first + (1 << order))
    busy = folio_busy(state, pfn)
    action = decisions.partial_punch(policy, int(record.kind), busy, dirty)
    if action == PART_KEEP:
        return
    if action == PART_DEFER:
        defer_pages(state, file, begin, end)
        return
    if policy.punch == PUNCH_ZERO or decisions.truncation_zeroes(policy):
        note_zeroing(state, file, begin, end)
    if busy and policy.punch == layout.PUNCH_SPLIT:
        state.tally[layout.TALLY_SPLIT_FAILED + CAUSE_PUNCH] += 1
    if action == PART_SPLIT:
        split_folio(state, file, head, begin, end, CAUSE_PUNCH)
        index = begin
        while index < end:
            piece = frame_of(state, row, index)
            size = folio_order(state, piece)
            drop_folio(state, file, index, size, piece)
            index += 1 << size
    elif action == PART_DROP:
        unmap(state, file, row, head, head + (1 << order), CAUSE_PUNCH)
        state.tally[layout.TALLY_LOST_PAGES] += (1 << order) - (end - begin)
        note_hazard(state, layout.HAZARD_LOST, (1 << order) - (end - begin))
        drop_folio(state, file, head, order, pfn)
    else:
        set_content(state, row, begin - first, end - first, STALE if action == PART_STALE else ZEROED)
        if action == PART_ZERO:
            enqueue_zeros(state, file, row)
        if action == PART_STALE:
            state.tally[layout.TALLY_STALE_PAGES] += end - begin
            note_hazard(state, layout.HAZARD_STALE, end - begin)


@jit
def has_base_pages_only(state: State, file: int) -> bool:
    """Whether no folio of a file can be larger: MADV_COLLAPSE makes huge pages of shmem whatever sizes it allocates."""
    record = state.files[file]
    policy = state.policies[record.policy]
    return bool(policy.sizes == 1 and policy.fallocate_sizes == 1 and record.kind != KIND_SHMEM)


@inline
def punch_folios(state: State, file: int, row: int, begin: int, end: int, base_pages_only: bool) -> None:
    """Punch pages [begin, end) of one 2 MiB of a file, folio by folio."""
    policy = state.policies[state.files[file].policy]
    keep = policy.punch == PUNCH_KEEP
    if policy.punch == PUNCH_DEFER:
        defer_pages(state, file, begin, end)
        return
    index = begin
    while index < end:
        pfn = frame_of(state, row, index)
        if pfn == 0:
            index += 1
            continue
        order = 0 if base_pages_only else folio_order(state, pfn)
        if order == 0 and not keep:
            if index + 1 == end:  # a hole of one page, or what is left of a larger one
                drop_base_page(state, file, row, index, pfn, policy.movable != 0)
                return
            index = drop_base_pages(state, file, row, index, end, policy.movable != 0)
            continue
        head = folio_head(index, order)
        after = head + (1 << order)
        if begin <= head and after <= end:
            if keep:
                unmap(state, file, row, head, after, CAUSE_PUNCH)
            drop_folio(state, file, head, order, pfn)
        else:
            punch_part(state, file, head, order, index, min(after, end))
        index = min(after, end)


@jit
def punch_whole_block(state: State, file: int, row: int, index: int) -> bool:
    """The uniform step: free a 2 MiB that lies in one whole or uniform host block at once. False if it does not."""
    block = int(state.file_blocks[row].block)
    if block == 0:
        return False
    kind = int(state.blocks[block].kind)
    if kind == WHOLE and state.blocks[block].deferred == 0:
        drop_folio(state, file, index, BLOCK_ORDER, block << BLOCK_ORDER)
        return True
    if kind == UNIFORM and state.host[0].nr_cpus == 0:
        if state.files[file].guest == GUEST_SNP:
            rmp.take_back(state, file, index, index + BLOCK_PAGES, False)
        empty_block(state, row)
        state.tally[TALLY_PRESENT] -= BLOCK_PAGES
        state.tally[layout.TALLY_RELEASED] += BLOCK_PAGES
        free_block(state, block)
        return True
    return False


@jit
def cut_at(state: State, file: int, index: int) -> tuple[int, int]:
    """Bounds of the folio that page `index` lies within but does not start; `index` twice where there is none."""
    pfn = frame_of(state, block_row(state, file, index), index) if index < state.files[file].pages else 0
    order = folio_order(state, pfn) if pfn else 0
    head = folio_head(index, order)
    return (index, index) if head == index else (head, head + (1 << order))


@inline
def punch_base_page(state: State, file: int, index: int) -> None:
    """`punch_run` of one page of a file that has base pages only, and no rule that defers: without loops, for speed.

    Such a file has no 2 MiB mapping that could be zapped, and nothing to mend.
    """
    row = block_row(state, file, index)
    if state.file_blocks[row].nr_present == 0:
        return
    unmap(state, file, row, index, index + 1, CAUSE_PUNCH)
    unmap_from_host(state, file, row, index, index + 1)
    pfn = frame_of(state, row, index)
    if pfn:
        drop_base_page(state, file, row, index, pfn, state.policies[state.files[file].policy].movable != 0)
    if state.file_blocks[row].nr_present == 0:
        settle(state, file, index)


@inline
def punch_run(state: State, file: int, first: int, end: int, base_pages_only: bool) -> None:
    """Punch one of the runs of pages of `punch_blocks`, 2 MiB by 2 MiB."""
    policy = state.policies[state.files[file].policy]
    index = first
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        row = block_row(state, file, index)
        if state.file_blocks[row].nr_present:
            if policy.punch != PUNCH_KEEP or stop - index == BLOCK_PAGES:
                unmap(state, file, row, index, stop, CAUSE_PUNCH)
            unmap_from_host(state, file, row, index, stop)  # what is shared in place has base pages, which all go
            if stop - index < BLOCK_PAGES or not punch_whole_block(state, file, row, index):
                punch_folios(state, file, row, index, stop, base_pages_only)
            mend(state, file, row, index)
            if state.file_blocks[row].nr_present == 0:
                settle(state, file, index)
        if policy.punch == PUNCH_DEFER and stop - index == BLOCK_PAGES:
            note_table(state, row, True)
        index = stop


@inline
def punch_blocks(state: State, file: int, first: int, end: int) -> None:
    """Punch pages [first, end) of a file whose policy allocates base pages among others.

    The folios that go as a whole are the first to do so (`truncate_inode_pages_range`, `shmem_undo_range`), but for anonymous
    memory, where `zap_pte_range` goes from page to page. Of 31 folios that leave together Linux frees those of orders 4 to 8
    before the others (`free_unref_folios`); here they go as they lie.
    """
    defers = state.policies[state.files[file].policy].punch == PUNCH_DEFER
    base_pages_only = has_base_pages_only(state, file)
    if base_pages_only and end - first == 1 and not defers:
        punch_base_page(state, file, first)
        return
    begin, stop = first, end
    if not defers and not base_pages_only:
        _, begin = cut_at(state, file, first)
        stop, _ = cut_at(state, file, end)
    if begin >= stop:
        begin, stop = first, end
    for low, high in ((begin, stop), (first, begin), (stop, end)):
        punch_run(state, file, low, high, base_pages_only)


@jit
def zero_part(state: State, file: int, begin: int, end: int, zap: bool) -> None:
    """Pages [begin, end) of a unit file read zero and stay charged (G66, L18)."""
    index = begin
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        row = block_row(state, file, index)
        if zap:
            unmap(state, file, row, index, stop, CAUSE_PUNCH)
        first = index & ~(BLOCK_PAGES - 1)
        note_zeroing(state, file, index, stop)
        set_content(state, row, index - first, stop - first, ZEROED)
        mend(state, file, row, index)
        settle(state, file, index)
        index = stop


@jit
def punch_units(state: State, file: int, first: int, end: int) -> tuple[int, int]:
    """Punch a file that works in 2 MiB or 1 GiB units: whole units go, parts follow the rule."""
    policy = state.policies[state.files[file].policy]
    unit = int(policy.unit)
    zeroes = policy.punch == layout.PUNCH_ZERO or state.files[file].kind == KIND_HUGETLB
    index = first
    while index < end:
        base = folio_head(index, unit)
        stop = min(end, base + (1 << unit))
        if index == base and stop == base + (1 << unit):
            error = release_unit(state, file, base, unit)
            if error:
                return error, index - first
        elif zeroes:
            zero_part(state, file, index, stop, True)
        index = stop
    return 0, end - first


@part
def punch(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """`fallocate(PUNCH_HOLE)` of pages [first, first + count), clipped to the file. Attributes stay (G22)."""
    error = check_range(first, count)
    if error:
        return error, 0
    record = state.files[file]
    policy = state.policies[record.policy]
    granularity = decisions.punch_granularity(policy, int(record.kind))
    if (first | count) & (granularity - 1):
        return errno.EINVAL, 0
    if policy.punch == layout.PUNCH_REFUSE and not decisions.works_in_units(policy):
        if cuts_folio(state, file, first) or cuts_folio(state, file, first + count):
            return errno.EINVAL, 0
    end = min(first + count, int(record.pages))
    if first >= end:
        return 0, count
    if decisions.works_in_units(policy):
        error, done = punch_units(state, file, first, end)
        return error, count if error == 0 else done
    punch_blocks(state, file, first, end)
    return 0, count


@jit
def cuts_folio(state: State, file: int, index: int) -> bool:
    """Whether a bound of a range at page `index` lies inside a folio."""
    head, _ = cut_at(state, file, index)
    return head != index
