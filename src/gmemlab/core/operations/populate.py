"""Populate: the backing that a fault or a fallocate finds or makes, largest folio first (G20, G34, G58, K14)."""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.daemons.register import note_cache
from gmemlab.core.effort import alloc_folio, alloc_page, migratetype_now
from gmemlab.core.frames import own_block
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_USED,
    GIGA,
    GIGA_ORDER,
    KIND_ANON,
    KIND_HUGETLB,
    NODES_LOCAL,
    PAGE_TABLE,
    PROMISED,
    SOURCE_POOL,
    TALLY_ALLOCATED,
    TALLY_PRESENT,
    UNIFORM,
    UNSEEN,
    WHOLE,
)
from gmemlab.core.mapping import block_row, fill_block, fill_pages, frame_of, is_shared, rows_to_fill, settle
from gmemlab.core.mempolicy import alloc_page_block, wanted_nodes
from gmemlab.core.operations.checks import check_within
from gmemlab.core.operations.split import join_unit, split_block, split_unit
from gmemlab.core.page_alloc import alloc_base_pages_easily
from gmemlab.core.parts import part
from gmemlab.core.pool_sizes import alloc_surplus
from gmemlab.core.pools import dequeue, pool_of, put_page, withdraw
from gmemlab.core.split_queue import enqueue_whole
from gmemlab.core.state import Records, State
from gmemlab.core.subpools import get_pages, put_pages


@jit
def range_is_empty(state: State, file: int, base: int, order: int) -> bool:
    """Whether no page of the aligned range is present."""
    if order < BLOCK_ORDER:
        row = block_row(state, file, base)
        if state.file_blocks[row].nr_present == 0:
            return True
        for index in range(base, base + (1 << order)):
            if frame_of(state, row, index):
                return False
        return True
    row = block_row(state, file, base)
    for step in range(1 << (order - BLOCK_ORDER)):
        if state.file_blocks[row + step].nr_present:
            return False
    return True


@jit
def range_is_private(state: State, file: int, base: int, order: int) -> bool:
    """Whether every page of the aligned range is private."""
    row = block_row(state, file, base)
    if order >= BLOCK_ORDER:
        for step in range(1 << (order - BLOCK_ORDER)):
            if state.file_blocks[row + step].nr_shared:
                return False
        return True
    if state.file_blocks[row].nr_shared == 0:
        return True
    for index in range(base, base + (1 << order)):
        if is_shared(state, row, index):
            return False
    return True


@jit
def insert_whole_blocks(state: State, file: int, base: int, host_block: int, order: int) -> None:
    """Make a folio of order 9 or 18 the backing of an empty range."""
    kind = GIGA if order == GIGA_ORDER else WHOLE
    row = block_row(state, file, base)
    for step in range(1 << (order - BLOCK_ORDER)):
        own_block(state, host_block + step, kind, order, file, (base >> BLOCK_ORDER) + step)
        fill_block(state, row + step, host_block + step)
    state.tally[TALLY_PRESENT + order] += 1 << order


@jit
def is_promised(state: State, file: int, base: int) -> bool:
    """Whether its pool owes a file the huge page at page `base`: named ones to hugetlb memory (L19), any to others (G70)."""
    if state.files[file].kind == KIND_HUGETLB:
        return bool(state.file_blocks[block_row(state, file, base)].marks & PROMISED)
    return bool(state.files[file].reserved > 0)


@part
def populate_from_pool(state: State, file: int, base: int, order: int, all_private: bool) -> int:
    """Take a huge page from the file's pool for an empty range: one that is promised to it, or (hugetlb memory) to nobody.

    Or one that its mount keeps; what the mount grants beyond that, and the pool has not, stays counted as the mount's (so
    `alloc_hugetlb_folio` in 6.18). The page is of the nodes that the file's policy allows, which no promise is about; where
    they have none, hugetlb memory takes a surplus page of them (`alloc_buddy_hugetlb_folio_with_mpol`).

    Returns 0, ENOMEM or (hugetlb memory) ENOSPC. That is what fallocate says; an access says so too, where a process feels
    SIGBUS (L19).
    """
    record = state.files[file]
    pool = state.pools[pool_of(order)]
    hugetlb = record.kind == KIND_HUGETLB
    short = errno.ENOSPC if hugetlb else errno.ENOMEM
    subpool = int(record.subpool)
    granted = is_promised(state, file, base)
    wanted = 0 if granted else get_pages(state, subpool, 1)
    if wanted < 0:
        return short
    promised = wanted == 0
    node, allowed = wanted_nodes(state, file, base, order)
    block = 0
    if promised or (hugetlb and pool.free != pool.reserved):
        block = dequeue(state, order, node, allowed)
    if block == 0:
        block = alloc_surplus(state, order, node, allowed) if hugetlb else 0
        if block == 0:
            if promised and not granted:
                withdraw(state, order, put_pages(state, subpool, 1))
            return short
    insert_whole_blocks(state, file, base, block, order)
    end = base + (1 << order)
    if not all_private and not split_unit(state, file, base, end, order, True, layout.CAUSE_POPULATE):
        join_unit(state, file, base, order)
        undo_whole_blocks(state, file, base, order)
        put_page(state, block, order)
        return short
    state.tally[TALLY_ALLOCATED + order] += 1
    if promised:
        record.reserved -= 1 if granted else 0
        pool.reserved -= 1
    if hugetlb:
        state.file_blocks[block_row(state, file, base)].marks |= PROMISED
    return 0


@jit
def undo_whole_blocks(state: State, file: int, base: int, order: int) -> None:
    """Take a folio of order 9 or 18, just inserted, out of its file again."""
    row = block_row(state, file, base)
    for step in range(1 << (order - BLOCK_ORDER)):
        block = state.file_blocks[row + step]
        block.nr_present = 0
        block.block = 0
    state.tally[TALLY_PRESENT + order] -= 1 << order


@jit
def populate_page(state: State, file: int, index: int, policy: Records, sizes: int, largest: int, by_fallocate: bool) -> int:
    """Make sure that page `index` is present, in a folio of one of `sizes` (orders as bits). Returns 0, ENOMEM or ENOSPC."""
    row = block_row(state, file, index)
    if frame_of(state, row, index):
        return 0
    order = largest
    while order >= 0:
        base = index & ~((1 << order) - 1)
        if order == 0 or (base + (1 << order) <= state.files[file].pages and range_is_empty(state, file, base, order)):
            all_private = order == 0 or not decisions.shares_in_place(policy) or range_is_private(state, file, base, order)
            if decisions.folio_may_cover(policy, order, all_private):
                error = populate_folio(state, file, base, order, all_private, policy, by_fallocate)
                if error == 0:
                    state.tally[layout.TALLY_HUGE_FALLBACK] += 1 if order < largest else 0
                    return 0
                if policy.source == SOURCE_POOL:
                    return error
        order = decisions.next_order(sizes, order)
    return errno.ENOMEM


@jit
def populate_folio(
    state: State, file: int, base: int, order: int, all_private: bool, policy: Records, by_fallocate: bool
) -> int:
    """Allocate and insert one folio of the given order for an empty, aligned range. Returns 0, ENOMEM or ENOSPC."""
    if policy.source == SOURCE_POOL:
        return populate_from_pool(state, file, base, order, all_private)
    row = block_row(state, file, base)
    if order == BLOCK_ORDER and state.file_blocks[row].marks & PAGE_TABLE:
        return errno.ENOMEM
    pfn = alloc_folio(state, order, file, base, by_fallocate)
    if pfn == 0:
        return errno.ENOMEM
    if order < BLOCK_ORDER and state.files[file].kind == KIND_ANON:
        state.file_blocks[row].marks |= PAGE_TABLE
    state.tally[TALLY_PRESENT + order] += 1 << order
    state.tally[TALLY_ALLOCATED + order] += 1
    if order == BLOCK_ORDER:
        fill_block(state, row, pfn >> BLOCK_ORDER)
        if state.files[file].kind == KIND_ANON:
            state.file_blocks[row].marks |= UNSEEN
            enqueue_whole(state, pfn >> BLOCK_ORDER)
        if not all_private:
            split_block(state, file, base, layout.CAUSE_POPULATE)
        return 0
    fill_pages(state, row, base, pfn, 1 << order)
    if state.file_blocks[row].nr_present == BLOCK_PAGES:
        settle(state, file, base)
    return 0


@jit
def populate_base_block(state: State, file: int, index: int, policy: Records) -> bool:
    """The uniform step: give an empty file block 512 base pages at once, if single steps would give the same."""
    row = block_row(state, file, index)
    if state.file_blocks[row].nr_present:
        return False
    pfn = alloc_page_block(state, migratetype_now(state, policy), file, index)
    if pfn == 0:
        return False
    own_block(state, pfn >> BLOCK_ORDER, UNIFORM, 0, file, index >> BLOCK_ORDER)
    fill_block(state, row, pfn >> BLOCK_ORDER)
    state.tally[TALLY_PRESENT] += BLOCK_PAGES
    state.tally[TALLY_ALLOCATED] += BLOCK_PAGES
    return True


@inline
def alloc_base_pages(state: State, file: int, index: int, most: int, migratetype: int) -> tuple[int, int]:
    """Frames for the absent pages from `index` on: of `most` or fewer. Returns (the first one or 0, their order)."""
    host = state.host[0]
    pfn, order = 0, 0
    if host.nr_nodes == 1:
        pfn, order = alloc_base_pages_easily(state, migratetype, 1 if host.calls_kswapd else most)
    if pfn == 0 or host.calls_kswapd:
        pfn = alloc_page(state, pfn, file, index)
        if pfn:
            note_cache(state, file)  # once more, as reclaim went round before this page was there
    return pfn, order


@jit
def end_of_gap(state: State, row: int, index: int, stop: int) -> int:
    """The first page from `index` on, within a file block, that is present; `stop` at most."""
    if state.file_blocks[row].nr_present == 0:
        return stop
    while index < stop and frame_of(state, row, index) == 0:
        index += 1
    return index


@inline
def insert_base_pages(state: State, pfn: int, pages: int, file: int, row: int, index: int, movable: bool) -> None:
    """`own_folio` and `fill_pages` at once, for base pages in frames one after the other, of one block."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    slot = int(record.detail) * BLOCK_PAGES + (pfn & (BLOCK_PAGES - 1))
    place = rows_to_fill(state, row) + (index & (BLOCK_PAGES - 1))
    for offset in range(pages):
        frame = state.frames[slot + offset]
        frame.index = index + offset
        frame.owner = file
        frame.order = 0
        frame.kind = FRAME_USED
        frame.busy = 0
        state.page_frames[place + offset] = pfn + offset
    if movable:
        record.nr_movable += pages
    state.file_blocks[row].nr_present += pages
    state.file_blocks[row].content = layout.FRESH


@inline
def populate_base_pages(
    state: State, file: int, row: int, begin: int, stop: int, migratetype: int, movable: bool
) -> tuple[int, int]:
    """Pages [begin, stop) of one file block, for policies that know base pages only. Returns (0 or ENOMEM, where it ended)."""
    index = begin
    gap = begin
    while index < stop:
        if gap == index:
            gap = end_of_gap(state, row, index, stop)
        if gap == index:
            index += 1
            gap = index
            continue
        pfn, order = alloc_base_pages(state, file, index, gap - index, migratetype)
        if pfn == 0:
            return errno.ENOMEM, index
        pages = 1 << order
        insert_base_pages(state, pfn, pages, file, row, index, movable)
        state.tally[TALLY_PRESENT] += pages
        state.tally[TALLY_ALLOCATED] += pages
        if state.file_blocks[row].nr_present == BLOCK_PAGES:
            if (pfn ^ index) & (BLOCK_PAGES - 1) == 0:  # else a look at the last page is enough
                settle(state, file, index)
            return 0, stop
        index += pages
    return 0, stop


@inline
def populate_base_page(state: State, file: int, row: int, index: int, migratetype: int, movable: bool) -> int:
    """`populate_base_pages` of one page: without loops, for speed. Returns 0 or ENOMEM."""
    if frame_of(state, row, index):
        return 0
    pfn, _ = alloc_base_pages(state, file, index, 1, migratetype)
    if pfn == 0:
        return errno.ENOMEM
    insert_base_pages(state, pfn, 1, file, row, index, movable)
    state.tally[TALLY_PRESENT] += 1
    state.tally[TALLY_ALLOCATED] += 1
    if state.file_blocks[row].nr_present == BLOCK_PAGES and (pfn ^ index) & (BLOCK_PAGES - 1) == 0:
        settle(state, file, index)
    return 0


@part
def populate(state: State, file: int, first: int, end: int, by_fallocate: bool) -> tuple[int, int]:
    """Make pages [first, end) present, ascending. Returns (errno, pages before the one that failed)."""
    policy = state.policies[state.files[file].policy]
    sizes = decisions.sizes_tried(policy, by_fallocate)
    base_pages_only = sizes == 1
    migratetype = migratetype_now(state, policy)
    movable = policy.movable != 0
    note_cache(state, file)
    if base_pages_only and end - first == 1:
        error = populate_base_page(state, file, block_row(state, file, first), first, migratetype, movable)
        return error, (0 if error else 1)
    largest = 0 if base_pages_only else decisions.next_order(sizes, layout.NR_FOLIO_ORDERS)
    index = first
    while index < end:
        row = block_row(state, file, index)
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        whole = index & (BLOCK_PAGES - 1) == 0 and stop - index == BLOCK_PAGES
        if state.file_blocks[row].nr_present == BLOCK_PAGES or (
            base_pages_only and whole and populate_base_block(state, file, index, policy)
        ):
            index = stop
        else:
            while index < stop:
                if base_pages_only:
                    error, index = populate_base_pages(state, file, row, index, stop, migratetype, movable)
                else:
                    error = populate_page(state, file, index, policy, sizes, largest, by_fallocate)
                    index += 1 if error == 0 else 0
                if error:
                    return error, index - first
                if state.file_blocks[row].nr_present == BLOCK_PAGES:
                    index = stop
    return 0, end - first


@jit
def allocate(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """`fallocate`: back a range of a file; what was there stays, and what was got before a failure stays (G20, L9)."""
    record = state.files[file]
    policy = state.policies[record.policy]
    error = check_within(state, file, first, count, decisions.allocate_granularity(policy, int(record.kind)))
    if error:
        return error, 0
    end = first + count
    if record.kind == KIND_HUGETLB:
        unit = 1 << int(policy.unit)
        end = (end + unit - 1) // unit * unit
        begin = first // unit * unit
        mode = int(record.node_mode)
        record.node_mode = NODES_LOCAL  # `hugetlbfs_fallocate` has no mapping whose policy it could ask
        error, done = populate(state, file, begin, end, True)
        record.node_mode = mode
        return error, max(0, min(count, begin + done - first))
    return populate(state, file, first, end, True)
