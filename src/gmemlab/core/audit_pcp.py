"""The invariants of the per-CPU lists."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, NR_PCP_LISTS
from gmemlab.core.lists import pfn_of
from gmemlab.core.pcp import is_kept_chunk, kept_in_block, pcp_list, pcp_order, pcp_row
from gmemlab.core.state import State


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
