"""Making 2 MiB of memory one folio again: MADV_COLLAPSE (L15, T1), and what khugepaged does alike."""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.buddy import free_block
from gmemlab.core.effort import alloc_trying
from gmemlab.core.frames import folio_busy, folio_order, leave_folio, own_folio
from gmemlab.core.hardware.moves import move_page_state
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    PAGE_TABLE,
    TALLY_PRESENT,
    UNIFORM,
    UNSEEN,
    USED,
    WHOLE,
    ZEROED,
)
from gmemlab.core.mapping import block_row, frame_of, is_shared, open_details, settle
from gmemlab.core.nodes import node_of
from gmemlab.core.operations.checks import check_within
from gmemlab.core.operations.punch import defer_pages
from gmemlab.core.page_details import content_at, put_content
from gmemlab.core.parts import part
from gmemlab.core.split_queue import enqueue_whole, enqueue_zeros
from gmemlab.core.state import State


@jit
def is_whole(state: State, row: int) -> bool:
    """Whether a file block lies, all of it, in one folio of order 9."""
    block = state.file_blocks[row]
    return bool(block.block and state.blocks[block.block].kind == WHOLE)


@jit
def is_held(state: State, row: int, base: int) -> bool:
    """Whether any page of a file block is pinned or referenced."""
    for index in range(base, base + BLOCK_PAGES):
        pfn = frame_of(state, row, index)
        if pfn and folio_busy(state, pfn):
            return True
    return False


@jit
def count_on_node(state: State, file: int, base: int, node: int) -> int:
    """How much of 2 MiB of a file lies on a node: pages of anonymous memory, folios of files (`cc->node_load`)."""
    row = block_row(state, file, base)
    host_block = int(state.file_blocks[row].block)
    if host_block and state.blocks[host_block].kind == UNIFORM:
        return BLOCK_PAGES if node_of(state, host_block) == node else 0
    count = 0
    index = base
    while index < base + BLOCK_PAGES:
        pfn = frame_of(state, row, index)
        if pfn and node_of(state, pfn >> BLOCK_ORDER) == node:
            count += 1
        index += 1 if pfn == 0 or state.files[file].kind == KIND_ANON else 1 << folio_order(state, pfn)
    return count


@jit
def find_target_nodes(state: State, file: int, base: int) -> tuple[int, int]:
    """The node with the most of 2 MiB that shall become one folio, and all that have as much.

    The first is wanted, no other but these are allowed, whatever the file's policy says (`hpage_collapse_find_target_node`).
    """
    if state.host[0].nr_nodes == 1:
        return 0, 0
    most, target, allowed = 0, 0, 0
    for node in range(int(state.host[0].nr_nodes)):
        count = count_on_node(state, file, base, node)
        if count > most:
            most, target, allowed = count, node, 0
        allowed |= 1 << node if count == most else 0
    return target, allowed


@jit
def move_pages(state: State, file: int, base: int, pfn: int) -> None:
    """Put the 2 MiB of anonymous memory at page `base` into the folio at frame `pfn`, page by page; holes are zeros."""
    row = block_row(state, file, base)
    block = state.file_blocks[row]
    details = open_details(state, row)
    for offset in range(BLOCK_PAGES):
        content = content_at(state, details + offset)
        if frame_of(state, row, offset):
            defer_pages(state, file, base + offset, base + offset + 1)
        put_content(state, details + offset, content)
    block.content = layout.FRESH
    block.nr_present = BLOCK_PAGES
    block.block = pfn >> BLOCK_ORDER
    block.marks = (block.marks & ~PAGE_TABLE) | UNSEEN
    settle(state, file, base)
    enqueue_whole(state, pfn >> BLOCK_ORDER)


@jit
def leave_pages(state: State, row: int) -> None:
    """The folios behind a file block of shmem or guest_memfd, none of them busy, leave it: they were copied."""
    host_block = int(state.file_blocks[row].block)
    if host_block and state.blocks[host_block].kind == UNIFORM and state.host[0].nr_cpus == 0:
        state.tally[TALLY_PRESENT] -= BLOCK_PAGES
        state.tally[layout.TALLY_RELEASED] += BLOCK_PAGES
        free_block(state, host_block)
        return
    offset = 0
    while offset < BLOCK_PAGES:
        pfn = frame_of(state, row, offset)
        order = folio_order(state, pfn) if pfn else 0
        if pfn:
            state.tally[TALLY_PRESENT + order] -= 1 << order
            leave_folio(state, pfn, order)
        offset += 1 << order


@jit
def move_file_pages(state: State, file: int, base: int, pfn: int) -> None:
    """Put the 2 MiB of shmem or guest_memfd at page `base` into the folio at frame `pfn`.

    What was there of shmem is up to date then, and its holes are zeros that nobody asked for (L15). The guest's mapping stays
    as it was (K6): each private page that the hardware knows is moved by firmware, and what was a hole is fresh.
    """
    row = block_row(state, file, base)
    block = state.file_blocks[row]
    guest = state.files[file].kind == KIND_GUEST_MEMFD
    details = open_details(state, row)
    for offset in range(BLOCK_PAGES):
        there = frame_of(state, row, offset)
        if there:
            move_page_state(state, file, details + offset, there, pfn)
    leave_pages(state, row)
    for offset in range(BLOCK_PAGES):
        there = frame_of(state, row, offset)
        if guest:
            state.tally[layout.TALLY_FIRMWARE_COPIES] += 1 if there and not is_shared(state, row, base + offset) else 0
        elif there == 0:
            put_content(state, details + offset, ZEROED)
            block.nr_stranded += 1
        elif content_at(state, details + offset) != ZEROED:
            put_content(state, details + offset, USED)
    block.content = layout.FRESH
    block.nr_present = BLOCK_PAGES
    block.block = pfn >> BLOCK_ORDER
    settle(state, file, base)
    if block.nr_stranded:
        enqueue_zeros(state, file, row)


@part
def replace_pages(state: State, file: int, base: int, pfn: int) -> None:
    """The folio at frame `pfn`, owned already, takes the place of what backs the 2 MiB at page `base`, which is copied."""
    state.tally[layout.TALLY_COLLAPSE_COPIED] += state.file_blocks[block_row(state, file, base)].nr_present
    if state.files[file].kind == KIND_ANON:
        move_pages(state, file, base, pfn)
    else:
        move_file_pages(state, file, base, pfn)
    state.tally[TALLY_PRESENT + BLOCK_ORDER] += BLOCK_PAGES
    state.tally[layout.TALLY_ALLOCATED + BLOCK_ORDER] += 1
    state.tally[layout.TALLY_COLLAPSED] += 1


@jit
def collapse_block(state: State, file: int, base: int) -> int:
    """Copy the 2 MiB at page `base` into a new folio; holes become zero pages. Returns 0 or the errno.

    EINVAL: nothing is there, not even a page table. EAGAIN: a page is held. ENOMEM: no free 2 MiB, also by compaction.
    """
    row = block_row(state, file, base)
    if state.file_blocks[row].nr_present == 0 and state.file_blocks[row].marks & PAGE_TABLE == 0:
        return errno.EINVAL
    if is_whole(state, row):
        return 0
    if is_held(state, row, base):
        return errno.EAGAIN
    policy = state.policies[state.files[file].policy]
    node, allowed = find_target_nodes(state, file, base)
    pfn = alloc_trying(state, BLOCK_ORDER, decisions.migratetype(policy), decisions.collapse_gfp(), node, allowed)
    if pfn == 0:
        return errno.ENOMEM
    own_folio(state, pfn, BLOCK_ORDER, file, base)
    replace_pages(state, file, base, pfn)
    return 0


@part
def collapse(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """Collapse every aligned 2 MiB inside [first, first + count). Returns (errno of the last that failed, pages collapsed).

    EINVAL also for memory that has no such operation (L7), and for a range without a whole aligned 2 MiB.
    """
    error = check_within(state, file, first, count, 1)
    if error:
        return error, 0
    kind = state.files[file].kind
    begin = (first + BLOCK_PAGES - 1) // BLOCK_PAGES * BLOCK_PAGES
    end = (first + count) // BLOCK_PAGES * BLOCK_PAGES
    if (kind != KIND_SHMEM and kind != KIND_ANON) or begin >= end:
        return errno.EINVAL, 0
    done = 0
    for base in range(begin, end, BLOCK_PAGES):
        failed = collapse_block(state, file, base)
        if failed:
            error = failed
        else:
            done += BLOCK_PAGES
    return error, done
