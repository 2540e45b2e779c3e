"""Accesses by the guest (private or shared) and by the host (G26, G27, G33, G39, K13)."""

import errno

from gmemlab.core import layout
from gmemlab.core.frames import folio_head, folio_order
from gmemlab.core.guestmap import map_private
from gmemlab.core.hardware import snp, tdx
from gmemlab.core.hardware.counts import CLEAR_2M, CLEAR_4K, note
from gmemlab.core.hostmap import map_for_host
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_PAGES,
    CONVERT_TWO_SOURCES,
    FRESH,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    PRIVATE,
    USED,
)
from gmemlab.core.mapping import block_row, frame_of, is_shared, open_details, set_content, settle
from gmemlab.core.operations.checks import check_range, check_within
from gmemlab.core.operations.populate import populate
from gmemlab.core.page_details import content_at, put_content
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def run_of_attribute(state: State, file: int, index: int, end: int, shared: bool) -> int:
    """End of the run of pages from `index` on, at most `end`, that have the given attribute."""
    while index < end:
        row = block_row(state, file, index)
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        block = state.file_blocks[row]
        if block.detail == 0 or block.nr_shared == 0:
            if (block.nr_shared > 0) != shared:
                return index
            index = stop
            continue
        while index < stop:
            if is_shared(state, row, index) != shared:
                return index
            index += 1
    return index


@jit
def note_cleared(state: State, file: int, pages: int) -> None:
    """So many fresh pages of a folio, in one 2 MiB, are cleared: of guest_memfd that is told (G27)."""
    if state.files[file].kind == KIND_GUEST_MEMFD:
        if pages == BLOCK_PAGES:
            note(state, file, CLEAR_2M, 1)
        else:
            note(state, file, CLEAR_4K, pages)


@jit
def note_cleared_alone(state: State, file: int, pages: int) -> None:
    """`note_cleared` of base pages."""
    if state.files[file].kind == KIND_GUEST_MEMFD:
        note(state, file, CLEAR_4K, pages)


@jit
def use_fresh_blocks(state: State, file: int, row: int, index: int, order: int) -> None:
    """All fresh pages of the folio of order 9 or 18 around page `index`, whose file block is `row`, become used."""
    first = row - ((index & ((1 << order) - 1)) >> layout.BLOCK_ORDER)
    for member in range(first, first + (1 << (order - layout.BLOCK_ORDER))):
        block = state.file_blocks[member]
        if block.content != FRESH:
            continue
        if block.detail == 0:
            block.content = USED
            note_cleared(state, file, BLOCK_PAGES)
            continue
        base = int(block.detail) * BLOCK_PAGES
        fresh = 0
        for slot in range(base, base + BLOCK_PAGES):
            if content_at(state, slot) == FRESH:
                put_content(state, slot, USED)
                fresh += 1
        block.content = USED
        note_cleared(state, file, fresh)
        settle(state, file, (member - int(state.files[file].first_block)) << layout.BLOCK_ORDER)


@jit
def use_fresh_pages(state: State, file: int, row: int, slot: int, order: int) -> None:
    """The fresh pages of a folio up to order 9, whose details begin at `slot`, become used."""
    fresh = 0
    for member in range(slot, slot + (1 << order)):
        if content_at(state, member) == FRESH:
            put_content(state, member, USED)
            fresh += 1
    if order == layout.BLOCK_ORDER:
        state.file_blocks[row].content = USED
    note_cleared(state, file, fresh)


@jit
def use_pages(state: State, file: int, begin: int, end: int, launched: bool) -> None:
    """Pages [begin, end) of one block, all present, are written: their folios are cleared once and then used (G27).

    Of a folio that the access reaches, fresh pages become used with it; punched ones only where they are accessed. Base pages
    of the launch image are filled instead of cleared (`kvm_gmem_populate`).
    """
    row = block_row(state, file, begin)
    block = state.file_blocks[row]
    first = begin & ~(BLOCK_PAGES - 1)
    if state.files[file].kind == KIND_ANON:  # zeroed when it was allocated: only what is written counts
        set_content(state, row, begin - first, end - first, USED)
        return
    if state.policies[state.files[file].policy].sizes >> layout.GIGA_ORDER & 1:
        # A merged one may have fresh parts where this one was used.
        if folio_order(state, frame_of(state, row, begin)) == layout.GIGA_ORDER:
            use_fresh_blocks(state, file, row, begin, layout.GIGA_ORDER)
    if block.detail == 0:
        if block.content == USED:
            return
        order = folio_order(state, frame_of(state, row, begin))
        if block.content == FRESH and order == layout.BLOCK_ORDER:
            use_fresh_blocks(state, file, row, begin, order)
            return
        if block.content != FRESH or state.blocks[block.block].kind == layout.UNIFORM:
            if block.content == FRESH and not launched:
                note_cleared_alone(state, file, end - begin)
            set_content(state, row, begin - first, end - first, USED)
            return
    base = open_details(state, row)
    index = begin
    while index < end:
        pfn = frame_of(state, row, index)
        order = folio_order(state, pfn)
        if order == 0:
            if content_at(state, base + (index - first)) == FRESH and not launched:
                note_cleared_alone(state, file, 1)
            set_content(state, row, index - first, index - first + 1, USED)
            index += 1
            continue
        order = min(order, layout.BLOCK_ORDER)
        head = folio_head(index, order)
        after = head + (1 << order)
        if block.content == FRESH:
            use_fresh_pages(state, file, row, base + head - first, order)
        set_content(state, row, index - first, min(after, end) - first, USED)
        index = min(after, end)


@jit
def touch_private(state: State, file: int, index: int, end: int, accept: int) -> None:
    """The guest touches or accepts the present private pages [index, end) of one block."""
    guest = state.files[file].guest
    if guest == layout.GUEST_SNP:
        snp.access(state, file, index, end, accept)
    elif guest == layout.GUEST_TDX:
        tdx.access(state, file, index, end, accept)
    else:
        map_private(state, file, index, end, accept)


@jit
def end_of_run(state: State, file: int, index: int, stop: int) -> int:
    """How far, within a block, pages from `index` on are alike: of anonymous memory all present, or all absent.

    What is there is written before more is allocated, as reclaim may take what is still zeros.
    """
    row = block_row(state, file, index)
    nr_present = state.file_blocks[row].nr_present
    if state.files[file].kind != KIND_ANON or nr_present == 0 or nr_present == BLOCK_PAGES:
        return stop
    present = frame_of(state, row, index) > 0
    while index < stop and (frame_of(state, row, index) > 0) == present:
        index += 1
    return index


@part
def use_range(state: State, file: int, first: int, end: int, accept: int, map_it: bool) -> tuple[int, int]:
    """Back, use and (for the guest's private accesses) map pages [first, end), one block or run at a time."""
    index = first
    while index < end:
        block = state.file_blocks[block_row(state, file, index)]
        before = int(block.nr_present) + int(block.nr_mapped)
        stop = end_of_run(state, file, index, min(end, (index | (BLOCK_PAGES - 1)) + 1))
        error, done = populate(state, file, index, stop, False)
        reached = index + done
        if reached > index:
            use_pages(state, file, index, reached, accept == layout.ACCEPT_LAUNCH)
            if map_it:
                touch_private(state, file, index, reached, accept)
            # Of pages that do not lie in order, a look at each time one is used again would be in vain.
            if block.detail and (block.block or block.nr_present + block.nr_mapped != before):
                settle(state, file, index)
        if error:
            return error, reached - first
        index = stop
    return 0, end - first


@jit
def access_guest_memfd(
    state: State, file: int, first: int, end: int, kind: int, accept: int, in_place: bool
) -> tuple[int, int]:
    """Access pages of a confidential guest: the attribute decides who may, and which memory answers."""
    shared = kind != PRIVATE
    if kind == layout.HOST and not in_place:
        return use_range(state, int(state.files[file].shared_file), first, end, 0, False)
    stop = run_of_attribute(state, file, first, end, shared)
    if state.files[file].guest == layout.GUEST_SNP and (accept == layout.ACCEPT_4K or accept == layout.ACCEPT_2M):
        snp.request_accepts(state, file, first, stop, accept)
    target = file if in_place or not shared else int(state.files[file].shared_file)
    error, done = use_range(state, target, first, stop, accept, not shared)
    if kind == layout.HOST and done:
        map_for_host(state, file, first, first + done)
    if error == 0 and stop < end:
        if kind == layout.HOST:
            return errno.EACCES, done
        state.tally[layout.TALLY_MEMORY_EXITS] += 1
        return errno.EFAULT, done
    return error, done


@part
def access(state: State, file: int, first: int, count: int, kind: int, accept: int) -> tuple[int, int]:
    """Touch pages for writing. EFAULT: the attribute differs (memory-fault exit).

    EACCES: what a process feels as SIGBUS, a host access to private memory or beyond the end of the file (G26). ENOSPC: hugetlb
    memory finds no page that is promised to it or to nobody; also SIGBUS (L19).
    """
    record = state.files[file]
    beyond = kind == layout.HOST and first + count > record.pages
    error = check_range(first, count) if beyond else check_within(state, file, first, count, 1)
    if error:
        return error, 0
    if first >= record.pages:
        return errno.EACCES, 0
    end = min(first + count, int(record.pages))
    if record.kind != KIND_GUEST_MEMFD:
        error, done = use_range(state, file, first, end, 0, False)
    else:
        in_place = state.policies[record.policy].conversion != CONVERT_TWO_SOURCES
        error, done = access_guest_memfd(state, file, first, end, kind, accept, in_place)
    return (errno.EACCES, done) if beyond and error == 0 else (error, done)
