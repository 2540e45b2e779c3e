"""The invariants of files: counts, attributes, mappings, who owns the frames of present pages, which daemons work for them."""

from gmemlab.core import decisions, layout
from gmemlab.core.audit_hardware import audit_orphans, audit_states
from gmemlab.core.audit_hostmap import audit_host_mappings
from gmemlab.core.audit_queue import index_in_file
from gmemlab.core.daemons.compaction import MAX_DEFER_SHIFT
from gmemlab.core.daemons.record import KCOMPACTD_INTERVAL
from gmemlab.core.frames import folio_order
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_USED,
    FRESH,
    HUGE_MAPPED,
    KIND_CACHE,
    KIND_HUGETLB,
    NR_FOLIO_ORDERS,
    NR_ORDERS,
    PROMISED,
    SOURCE_POOL,
    SPLIT,
    STALE,
    TALLY_ALLOCATED,
    TALLY_PRESENT,
    TALLY_RELEASED,
    UNIFORM,
    WHOLE,
    ZEROED,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import contiguous_block, frame_of
from gmemlab.core.nodes import node_of
from gmemlab.core.page_details import MAPPED, SHARED, content_at, has_mark
from gmemlab.core.pools import pool_of
from gmemlab.core.state import State
from gmemlab.core.subpools import kept_by_subpools


@jit
def owns_frame(state: State, file: int, index: int, pfn: int) -> bool:
    """Whether the host side says that frame `pfn` holds page `index` of a file."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    if record.kind == SPLIT:
        frame = state.frames[slot_of(state, pfn)]
        return bool(frame.kind == FRAME_USED and frame.owner == file and index_in_file(state, pfn) == index)
    if record.kind != WHOLE and record.kind != UNIFORM and record.kind != layout.GIGA:
        return False
    same_place = (pfn & (BLOCK_PAGES - 1)) == (index & (BLOCK_PAGES - 1))
    return bool(record.owner == file and record.index == index >> BLOCK_ORDER and same_place)


@jit
def audit_page(state: State, file: int, index: int, row: int, slot: int) -> int:
    """Check one page that has details."""
    pfn = frame_of(state, row, index)
    if pfn and not owns_frame(state, file, index, pfn):
        return 21
    if has_mark(state, slot, MAPPED) and (has_mark(state, slot, SHARED) or pfn == 0):
        return 22
    if pfn == 0:
        return 20 if content_at(state, slot) != FRESH else 0
    order = folio_order(state, pfn)
    if (pfn & ((1 << order) - 1)) != (index & ((1 << order) - 1)):
        return 26
    return 0


@jit
def audit_details(state: State, file: int, first: int, row: int) -> int:
    """Check a file block that has page details."""
    block = state.file_blocks[row]
    base = int(block.detail) * BLOCK_PAGES
    present = 0
    shared = 0
    mapped = 0
    stranded = 0
    for offset in range(BLOCK_PAGES):
        slot = base + offset
        code = audit_page(state, file, first + offset, row, slot)
        if code:
            return code
        pfn = frame_of(state, row, offset)
        content, is_shared, is_mapped = content_at(state, slot), has_mark(state, slot, SHARED), has_mark(state, slot, MAPPED)
        present += 1 if pfn else 0
        shared += is_shared
        mapped += is_mapped
        stranded += 1 if content == ZEROED or content == STALE else 0
        if pfn and content == FRESH and block.content != FRESH:
            return 20
        if first + offset >= state.files[file].pages and (pfn or is_shared or is_mapped):
            return 25
    if present != block.nr_present or shared != block.nr_shared or mapped != block.nr_mapped:
        return 20
    return 20 if stranded != block.nr_stranded else 0


@jit
def audit_uniform(state: State, file: int, first: int, row: int) -> int:
    """Check a file block without page details."""
    block = state.file_blocks[row]
    span = min(BLOCK_PAGES, int(state.files[file].pages) - first)
    if block.nr_present not in (0, BLOCK_PAGES) or block.nr_shared not in (0, span):
        return 20
    if block.nr_present == 0:
        return 20 if block.block or block.nr_mapped or block.nr_stranded else 0
    if block.nr_mapped not in (0, BLOCK_PAGES) or (block.nr_mapped and block.nr_shared):
        return 22
    if block.nr_stranded != (BLOCK_PAGES if block.content == ZEROED or block.content == STALE else 0):
        return 20
    asked = BLOCK_PAGES if state.blocks[block.block].kind == SPLIT else 1  # of others all frames have the same answer
    for offset in range(asked):
        if not owns_frame(state, file, first + offset, int(block.block) * BLOCK_PAGES + offset):
            return 21
    return 0


@jit
def present_in_order(state: State, row: int, order: int) -> int:
    """Pages of a file block that are in folios of one order."""
    block = state.file_blocks[row]
    if block.nr_present == 0:
        return 0
    if block.detail == 0 and state.blocks[block.block].kind != SPLIT:
        return BLOCK_PAGES if folio_order(state, int(block.block) << BLOCK_ORDER) == order else 0
    pages = 0
    for offset in range(BLOCK_PAGES):
        pfn = frame_of(state, row, offset)
        if pfn and folio_order(state, pfn) == order:
            pages += 1
    return pages


@jit
def audit_file(state: State, file: int) -> int:
    """Check every 2 MiB of one file."""
    record = state.files[file]
    for step in range((int(record.pages) + BLOCK_PAGES - 1) >> BLOCK_ORDER):
        row = int(record.first_block) + step
        block = state.file_blocks[row]
        first = step << BLOCK_ORDER
        code = audit_details(state, file, first, row) if block.detail else audit_uniform(state, file, first, row)
        if code == 0:
            code = audit_states(state, file, row)
        if code == 0:
            code = audit_host_mappings(state, file, row)
        if code:
            return code
        if block.marks & HUGE_MAPPED:
            if block.nr_mapped != BLOCK_PAGES or block.nr_present != BLOCK_PAGES or block.nr_shared:
                return 23
            if contiguous_block(state, row) == 0:
                return 23
    return 0


@jit
def count_promises(state: State, file: int, order: int) -> int:
    """Huge pages in the reservation map of hugetlb memory that are absent; -1 if a present one is not in it (L19)."""
    record = state.files[file]
    absent = 0
    for base in range(0, int(record.pages), 1 << order):
        block = state.file_blocks[int(record.first_block) + (base >> BLOCK_ORDER)]
        promised = block.marks & PROMISED
        if block.nr_present and not promised:
            return -1
        if promised and block.nr_present == 0:
            absent += 1
    return absent


@jit
def audit_promises(state: State, order: int) -> tuple[int, int]:
    """Hold what a pool has promised against its files: by page to hugetlb memory (L19), by number to others (G70)."""
    promised = 0
    for file in range(1, int(state.host[0].next_file)):
        record = state.files[file]
        policy = state.policies[record.policy]
        if record.alive and policy.source == SOURCE_POOL and policy.unit == order:
            if record.kind == KIND_HUGETLB and count_promises(state, file, order) != record.reserved:
                return 15, file
            promised += int(record.reserved)
    pool = state.pools[pool_of(order)]
    promised += kept_by_subpools(state, order)
    return (15, order) if promised != pool.reserved or (order == BLOCK_ORDER and promised > pool.free) else (0, 0)


@jit
def audit_daemons(state: State) -> tuple[int, int]:
    """Hold khugepaged's list against the files, and each node's kcompactd to what it may be asked, and how long it sleeps."""
    for node in range(int(state.host[0].nr_nodes)):
        record = state.nodes[node]
        ordered = 0 <= record.max_order < NR_ORDERS and ZONE_NORMAL <= record.highest_zone <= ZONE_MOVABLE
        if not ordered or not 0 < record.kcompactd_sleep <= KCOMPACTD_INTERVAL << MAX_DEFER_SHIFT:
            return 28, node
    daemons = state.daemons[0]
    scanned = 0
    for file in range(1, int(state.host[0].next_file)):
        record = state.files[file]
        policy = state.policies[record.policy]
        scanned += 1 if record.alive and decisions.has_khugepaged(policy) else 0
    before = 0
    file = int(daemons.head)
    while file and scanned >= 0:
        record = state.files[file]
        if record.scan_prev != before or not record.alive or not decisions.has_khugepaged(state.policies[record.policy]):
            return 28, file
        scanned -= 1
        before = file
        file = int(record.scan_next)
    listed = scanned == 0 and before == daemons.tail
    cursor = daemons.file == 0 or (state.files[daemons.file].alive and daemons.page <= state.files[daemons.file].pages)
    return (0, 0) if listed and cursor else (28, 0)


@jit
def cache_on_node(state: State, file: int, node: int) -> bool:
    """Whether a page of a file lies on a node."""
    for index in range(int(state.files[file].pages)):
        row = int(state.files[file].first_block) + (index >> BLOCK_ORDER)
        pfn = frame_of(state, row, index) if state.file_blocks[row].nr_present else 0
        if pfn and node_of(state, pfn >> BLOCK_ORDER) == node:
            return True
    return False


@jit
def audit_hand(state: State, node: int) -> bool:
    """Whether the hand of a node's reclaim stands in a file of page cache, and what it calls dry has nothing of this node."""
    record = state.nodes[node]
    hand = int(record.lru_file)
    if hand and (not state.files[hand].alive or state.files[hand].kind != KIND_CACHE):
        return False
    file = int(state.daemons[0].lru_head) if record.lru_dry else 0
    while file:
        if cache_on_node(state, file, node):
            return False
        file = int(state.files[file].scan_next)
    return True


@jit
def audit_cache(state: State) -> tuple[int, int]:
    """Hold the list of page cache against the files, and what reclaim remembers of it."""
    daemons = state.daemons[0]
    listed = 0
    for file in range(1, int(state.host[0].next_file)):
        listed += 1 if state.files[file].alive and state.files[file].kind == KIND_CACHE else 0
    before = 0
    file = int(daemons.lru_head)
    while file and listed >= 0:
        record = state.files[file]
        if record.scan_prev != before or not record.alive or record.kind != KIND_CACHE:
            return 34, file
        listed -= 1
        before = file
        file = int(record.scan_next)
    if listed or before != daemons.lru_tail:
        return 34, 0
    for node in range(int(state.host[0].nr_nodes)):
        if not audit_hand(state, node):
            return 34, node
    return 0, 0


@jit
def audit_files(state: State) -> tuple[int, int]:
    """Check all files, and the counters of present pages."""
    files = int(state.host[0].next_file)
    for file in range(1, files):
        if state.files[file].alive:
            code = audit_file(state, file)
            if code:
                return code, file
    code, place = audit_orphans(state)
    if code:
        return code, place
    charged = int(state.tally[layout.TALLY_DEFERRED])
    for order in range(NR_FOLIO_ORDERS):
        present = 0
        for file in range(1, files):
            if state.files[file].alive:
                record = state.files[file]
                for step in range((int(record.pages) + BLOCK_PAGES - 1) >> BLOCK_ORDER):
                    present += present_in_order(state, int(record.first_block) + step, order)
        if present != state.tally[TALLY_PRESENT + order]:
            return 24, order
        charged += present - ((state.tally[TALLY_ALLOCATED + order] - state.tally[TALLY_RELEASED + order]) << order)
    return (27, 0) if charged else (0, 0)
