"""The invariants of the per-CPU lists."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRAME_PCP, FRAME_TAIL, NR_PCP_LISTS, PCP, SPLIT
from gmemlab.core.lists import pfn_of
from gmemlab.core.pcp import pcp_list, pcp_order, pcp_row
from gmemlab.core.state import State


@jit
def is_kept_chunk(state: State, pfn: int, order: int) -> bool:
    """Whether a chunk of this order, on a CPU's list, starts at a frame: aligned, its other frames tails."""
    block = state.blocks[pfn >> BLOCK_ORDER]
    if order == BLOCK_ORDER:
        return bool(block.kind == PCP and block.order == BLOCK_ORDER)
    if block.kind != SPLIT or pfn & ((1 << order) - 1):
        return False
    slot = int(block.detail) * BLOCK_PAGES + (pfn & (BLOCK_PAGES - 1))
    if state.frames[slot].kind != FRAME_PCP or state.frames[slot].order != order:
        return False
    for tail in range(slot + 1, slot + (1 << order)):
        if state.frames[tail].kind != FRAME_TAIL:
            return False
    return True


@jit
def audit_kept_list(state: State, zone: int, row: int, index: int) -> tuple[int, int]:
    """Walk one list. Returns (rule, block) where broken, else (0, chunks)."""
    order = pcp_order(index)
    free_list = state.free_lists[pcp_list(state, row, index)]
    before = 0
    chunks = 0
    node = int(free_list.head)
    while node:
        pfn = node << BLOCK_ORDER if order == BLOCK_ORDER else pfn_of(state, node)
        linked = state.blocks[node].prev if order == BLOCK_ORDER else state.frames[node].prev
        if state.blocks[pfn >> BLOCK_ORDER].zone != zone or linked != before or not is_kept_chunk(state, pfn, order):
            return 16, pfn >> BLOCK_ORDER
        before = node
        node = int(state.blocks[node].next) if order == BLOCK_ORDER else int(state.frames[node].next)
        chunks += 1
        if chunks > free_list.count:
            break
    return (16, before) if chunks != free_list.count or before != free_list.tail else (0, chunks)


@jit
def kept_in_block(state: State, block: int) -> int:
    """Pages of a block that lie on CPUs' lists."""
    if state.blocks[block].kind == PCP:
        return BLOCK_PAGES
    kept = 0
    if state.blocks[block].kind == SPLIT:
        base = int(state.blocks[block].detail) * BLOCK_PAGES
        for slot in range(base, base + BLOCK_PAGES):
            if state.frames[slot].kind == FRAME_PCP:
                kept += 1 << int(state.frames[slot].order)
    return kept


@jit
def audit_cpus(state: State) -> tuple[int, int]:
    """Hold the lists of all CPUs against their counts, and against the blocks."""
    listed = 0
    for zone in range(int(state.host[0].nr_zones)):
        for cpu in range(int(state.host[0].nr_cpus)):
            row = pcp_row(state, zone, cpu)
            pages = 0
            for index in range(NR_PCP_LISTS):
                code, found = audit_kept_list(state, zone, row, index)
                if code:
                    return code, found
                pages += found << pcp_order(index)
            if pages != state.pcps[row].count:
                return 17, cpu
            listed += pages
    counted = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        counted += kept_in_block(state, block)
    return (17, 0) if counted != listed else (0, 0)
