"""Per-CPU lists: a CPU keeps what it frees, and hands it out again last in, first out (mm/page_alloc.c, 6.18).

There is one list for each migratetype and order up to 3, and two for order 9. What lies on them is free, though on no free
list: it merges with nothing, and watermarks do not count it. A CPU refills in batches, which grow while it only allocates, and
gives back in batches, which grow while it only frees. Where the host has no CPUs of its own, there are no lists.

An allocation that the free lists cannot serve fails while pages lie here, its own CPU's among them: they are given back only
once reclaim made progress (`__alloc_pages_direct_reclaim`). Without page cache there is none for orders up to 3; for larger
ones it counts as such that there is enough for compaction.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import claim, free_block, free_chunk, note_taken, spare, steal, take_own
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    COSTLY_ORDER,
    FRAME_PCP,
    FRAME_TAIL,
    ISOLATE,
    MOVABLE,
    NR_LOWORDER_PCP_LISTS,
    NR_MIGRATETYPES,
    NR_ORDERS,
    NR_PCP_LISTS,
    NR_PCPTYPES,
    PCP,
    PCP_BATCH_SCALE_MAX,
    SPLIT,
    UNMOVABLE,
)
from gmemlab.core.lists import pfn_of, push_block, push_frame, remove_block, remove_frame, slot_of
from gmemlab.core.parts import part
from gmemlab.core.state import State


@inline
def has_lists(state: State, order: int) -> bool:
    """Whether chunks of this order go through a CPU's lists (`pcp_allowed_order`)."""
    return bool(state.host[0].nr_cpus and (order <= COSTLY_ORDER or order == BLOCK_ORDER))


@jit
def node_of_cpu(state: State, cpu: int) -> int:
    """The node of a CPU."""
    for node in range(int(state.host[0].nr_nodes)):
        if cpu < state.nodes[node].first_cpu + state.nodes[node].nr_cpus:
            return node
    return 0


@jit
def pcp_row(state: State, zone: int, cpu: int) -> int:
    """Row of `state.pcps`."""
    return zone * layout.MAX_CPUS + cpu


@jit
def pcp_index(migratetype: int, order: int) -> int:
    """Which of a CPU's lists (`order_to_pindex`)."""
    if order > COSTLY_ORDER:
        return NR_LOWORDER_PCP_LISTS + (1 if migratetype == MOVABLE else 0)
    return NR_PCPTYPES * order + migratetype


@jit
def pcp_order(index: int) -> int:
    """The order of the chunks on one of a CPU's lists (`pindex_to_order`)."""
    return BLOCK_ORDER if index >= NR_LOWORDER_PCP_LISTS else index // NR_PCPTYPES


@jit
def pcp_list(state: State, row: int, index: int) -> int:
    """Row of `state.free_lists`: behind the free lists and the isolated chunks."""
    return (int(state.host[0].nr_zones) * NR_MIGRATETYPES + 1) * NR_ORDERS + row * NR_PCP_LISTS + index


@jit
def keep(state: State, row: int, index: int, pfn: int, to_tail: bool) -> None:
    """Put a chunk on a CPU's list (`list_add` of its page's `pcp_list`)."""
    order = pcp_order(index)
    if order == BLOCK_ORDER:
        push_block(state, pcp_list(state, row, index), pfn >> BLOCK_ORDER, order, to_tail)
        state.blocks[pfn >> BLOCK_ORDER].kind = PCP
    else:
        slot = slot_of(state, pfn)
        push_frame(state, pcp_list(state, row, index), slot, order, to_tail)
        state.frames[slot].kind = FRAME_PCP
    state.pcps[row].count += 1 << order


@jit
def unkeep(state: State, row: int, index: int, from_tail: bool) -> int:
    """Take a chunk off a CPU's list that is not empty. Returns its first frame."""
    order = pcp_order(index)
    place = pcp_list(state, row, index)
    node = int(state.free_lists[place].tail) if from_tail else int(state.free_lists[place].head)
    state.pcps[row].count -= 1 << order
    if order == BLOCK_ORDER:
        remove_block(state, place, node)
        return node << BLOCK_ORDER
    remove_frame(state, place, node)
    return pfn_of(state, node)


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


@inline
def free_at_once(state: State, pfn: int, order: int) -> None:
    """Free a chunk of order 9 at most to the free lists (`free_one_page`)."""
    if order == BLOCK_ORDER:
        free_block(state, pfn >> BLOCK_ORDER)
    else:
        free_chunk(state, pfn, order)


# -- giving back ------------------------------------------------------------------------------------------------------------


@part
def free_bulk(state: State, row: int, pages: int, index: int) -> None:
    """Give back `pages` or more: the oldest of list `index`, then those of the lists behind it (`free_pcppages_bulk`)."""
    pages = min(int(state.pcps[row].count), pages)
    while pages > 0:
        while state.free_lists[pcp_list(state, row, index)].head == 0:
            index = (index + 1) % NR_PCP_LISTS
        order = pcp_order(index)
        if order < BLOCK_ORDER:
            state.pcps[row].touched = 1
        while pages > 0 and state.free_lists[pcp_list(state, row, index)].head:
            free_at_once(state, unkeep(state, row, index, True), order)
            pages -= 1 << order
        index = (index + 1) % NR_PCP_LISTS


@jit
def drain_cpu(state: State, zone: int, cpu: int) -> None:
    """Give back all that a CPU keeps of a zone (`drain_pages_zone`)."""
    row = pcp_row(state, zone, cpu)
    while state.pcps[row].count:
        free_bulk(state, row, int(state.pcps[row].batch) << PCP_BATCH_SCALE_MAX, 0)


@part
def drain_zone(state: State, zone: int) -> None:
    """All CPUs give back what they keep of a zone (`drain_all_pages`)."""
    for cpu in range(int(state.host[0].nr_cpus)):
        drain_cpu(state, zone, cpu)


@jit
def drain_all(state: State) -> None:
    """The same of all zones."""
    for zone in range(int(state.host[0].nr_zones)):
        drain_zone(state, zone)


@jit
def limit_of_free(state: State, zone: int, row: int, free_high: bool) -> int:
    """How many pages a CPU may keep after a free; how many it will, next time, changes with it (`nr_pcp_high`)."""
    pcp = state.pcps[row]
    low, most = int(pcp.high_min), int(pcp.high_max)
    high = min(max(int(pcp.high), low), most)
    pcp.high = high
    if high == 0:
        return 0
    if free_high:
        pcp.high = max(high - (int(pcp.batch) << PCP_BATCH_SCALE_MAX), low)
        return 0
    if state.zones[zone].reclaiming:
        pcp.high = max(high - max(int(pcp.free_count), int(pcp.batch)), low)
        return min(int(pcp.batch) << 2, int(pcp.high))
    if low == most:
        return high
    if state.zones[zone].below_high:
        pcp.high = max(high - max(int(pcp.free_count), int(pcp.batch)), low)
        return max(int(pcp.count), low)
    wanted = int(pcp.free_count + pcp.batch)
    if pcp.count >= high and high < wanted:
        pcp.high = min(max(wanted, low), most)
    return high


@jit
def pages_to_free(state: State, row: int, high: int, free_high: bool) -> int:
    """How many pages a CPU gives back that has too many (`nr_pcp_free`)."""
    pcp = state.pcps[row]
    batch = int(pcp.batch)
    if free_high:
        return min(int(pcp.count), batch << PCP_BATCH_SCALE_MAX)
    if high < batch:
        return 1
    return max(min(int(pcp.free_count), high - batch), batch)


@jit
def shorten(state: State, row: int, pages: int, index: int) -> None:
    """Give back from list `index` on what became too much: at once, or (since 6.19) batch by batch.

    A huge page uses up one of these batches only, so that base pages go as well ("mm/page_alloc: batch page freeing in
    free_frozen_page_commit"). Seen on 7.3.4; on 6.18.15 the huge page alone is more than all that had to go.
    """
    batch = int(state.pcps[row].batch) if state.host[0].in_batches else pages
    while pages > 0 and state.pcps[row].count:
        free_bulk(state, row, min(pages, batch), index)
        pages -= batch


@part
def free_to_cpu(state: State, pfn: int, order: int) -> None:
    """Free a chunk to the lists of the CPU that works now (`__free_frozen_pages`, `free_frozen_page_commit`).

    What is of a HIGHATOMIC or CMA block goes to the list of movable memory, what is isolated to no list of a CPU.
    """
    block = state.blocks[pfn >> BLOCK_ORDER]
    zone = int(block.zone)
    migratetype = int(block.migratetype)
    if migratetype >= NR_PCPTYPES:
        if migratetype == ISOLATE:
            free_at_once(state, pfn, order)
            return
        migratetype = MOVABLE
    row = pcp_row(state, zone, int(state.host[0].cpu))
    pcp = state.pcps[row]
    pcp.alloc_factor >>= 1
    index = pcp_index(migratetype, order)
    keep(state, row, index, pfn, False)
    if order < BLOCK_ORDER:
        pcp.touched = 1
    free_high = False
    if order and order <= COSTLY_ORDER:
        # PCPF_FREE_HIGH_BATCH is taken to be set: the CPU's slice of the cache is larger than three batches.
        free_high = bool(pcp.freed_high and pcp.free_count >= pcp.batch + pcp.high_min // 2 and pcp.count >= pcp.batch)
        pcp.freed_high = 1
    else:
        pcp.freed_high = 0
    if pcp.free_count < int(pcp.batch) << PCP_BATCH_SCALE_MAX:
        pcp.free_count += 1 << order
    high = limit_of_free(state, zone, row, free_high)
    if pcp.count >= high:
        shorten(state, row, pages_to_free(state, row, high, free_high), index)
        record = state.zones[zone]
        if record.below_high and spare(state, zone, UNMOVABLE) - 1 >= record.high:
            record.below_high = 0


# -- taking -----------------------------------------------------------------------------------------------------------------


@jit
def pages_to_take(state: State, zone: int, row: int, order: int) -> int:
    """How many chunks a CPU takes at once when its list is empty (`nr_pcp_alloc`)."""
    pcp = state.pcps[row]
    base = int(pcp.batch)
    low, most = int(pcp.high_min), int(pcp.high_max)
    high = min(max(int(pcp.high), low), most)
    pcp.high = high
    if high < base:
        return 1
    batch = base if order else base << int(pcp.alloc_factor)
    if low != most and state.zones[zone].below_high == 0:
        high = min(high + batch, most)
        pcp.high = high
    if order == 0:
        room = max(high - int(pcp.count) - base, base)
        if batch <= room and pcp.alloc_factor < PCP_BATCH_SCALE_MAX:
            pcp.alloc_factor += 1
        batch = min(batch, room)
    return max(batch >> order, 2) if batch > 1 else batch


@jit
def refill(state: State, zone: int, row: int, index: int, migratetype: int, least: int) -> None:
    """Take a batch off the free lists, to the tail (`rmqueue_bulk`). After a chunk was stolen the next ones are, too."""
    order = pcp_order(index)
    stealing = False
    for _ in range(pages_to_take(state, zone, row, order)):
        pfn = 0
        if not stealing:
            pfn = take_own(state, zone, migratetype, order)
            if pfn == 0:
                pfn = claim(state, zone, migratetype, order, least)
        if pfn == 0 and least == 0:
            pfn = steal(state, zone, migratetype, order)
            stealing = pfn != 0
        if pfn == 0:
            return
        note_taken(state, zone, pfn, order)
        keep(state, row, index, pfn, True)


@part
def alloc_from_cpu(state: State, zone: int, order: int, migratetype: int, least: int) -> int:
    """A chunk from the lists of the CPU that works now, refilled when empty (`rmqueue_pcplist`). 0 if that is in vain."""
    row = pcp_row(state, zone, int(state.host[0].cpu))
    state.pcps[row].free_count >>= 1
    index = pcp_index(migratetype, order)
    place = pcp_list(state, row, index)
    if state.free_lists[place].head == 0:
        refill(state, zone, row, index, migratetype, least)
    if state.free_lists[place].head == 0:
        return 0
    if order < BLOCK_ORDER:
        state.pcps[row].touched = 1
    return unkeep(state, row, index, False)
