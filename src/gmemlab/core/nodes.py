"""NUMA nodes: whose zones are asked first, and allocations that want one of them (mm/page_alloc.c, 6.18).

A wanted node and the nodes that are allowed, as bits (0: all), go together: Linux's preferred node and nodemask. Nodes are
numbered from 0, and each has memory. That Linux passes over a node whose kswapd is awake is not modelled.
"""

from gmemlab.core import layout
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.page_alloc import (
    EASY,
    HARD,
    UNMIXED,
    alloc_at,
    alloc_base_block,
    alloc_base_pages_easily,
    alloc_block_of,
    alloc_easily,
    is_above,
    is_open,
    try_zone,
)
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def all_nodes(state: State) -> int:
    """The bits of all nodes (`node_states[N_MEMORY]`)."""
    return (1 << int(state.host[0].nr_nodes)) - 1


@jit
def node_of(state: State, block: int) -> int:
    """The node of a block."""
    return int(state.zones[int(state.blocks[block].zone)].node)


@jit
def next_node_in(node: int, allowed: int) -> int:
    """The next node after `node` among `allowed` ones, of which there must be some; the lowest where there is none above."""
    later = allowed >> (node + 1) << (node + 1)
    left = later or allowed
    found = 0
    while left >> found & 1 == 0:
        found += 1
    return found


@jit
def turn_of(node: int, allowed: int) -> int:
    """The node whose turn it is among `allowed` ones, where `node` is next of all (`get_valid_node_allowed`)."""
    return node if (allowed >> node) & 1 else next_node_in(node, allowed)


@jit
def zone_at(state: State, node: int, k: int) -> int:
    """The zone that is asked k-th for memory that wants a node (`node_zonelists`)."""
    return int(state.zonelists[node * int(state.host[0].nr_zones) + k])


@jit
def may_serve(state: State, zone: int, migratetype: int, allowed: int) -> bool:
    """Whether a zone serves a migratetype, and is of an allowed node."""
    return is_open(state, zone, migratetype) and (allowed == 0 or (allowed >> int(state.zones[zone].node)) & 1 != 0)


@jit
def preferred_zone(state: State, migratetype: int, node: int, allowed: int) -> int:
    """The first zone that may serve (`preferred_zoneref`); -1 where none may."""
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        if may_serve(state, zone, migratetype, allowed):
            return zone
    return -1


@jit
def avoids_mixing_in(state: State, zone: int) -> bool:
    """`avoids_mixing`, for a preferred zone: its own node must have a zone DMA32."""
    record = state.zones[zone]
    return bool(state.host[0].nofragment and record.kind == layout.ZONE_NORMAL and state.nodes[int(record.node)].has_dma32)


@jit
def count_by_node(state: State, wanted: int, got: int, times: int, pages: int) -> None:
    """Count allocations by where they wanted to be and where they are (`zone_statistics`)."""
    if wanted == got:
        state.nodes[got].hit += times
        state.tally[layout.TALLY_NUMA_HIT] += times
        return
    state.nodes[got].miss += times
    state.nodes[wanted].foreign += times
    state.tally[layout.TALLY_NUMA_MISS] += times
    state.tally[layout.TALLY_NUMA_MISS_PAGES] += pages


@jit
def count_near(state: State, zone: int, order: int, migratetype: int, node: int, allowed: int) -> None:
    """Count an allocation from a zone, on a host of several nodes."""
    if state.host[0].nr_nodes > 1:
        wanted = int(state.zones[preferred_zone(state, migratetype, node, allowed)].node)
        count_by_node(state, wanted, int(state.zones[zone].node), 1, 1 << order)


@jit
def alloc_at_nodes(state: State, order: int, migratetype: int, node: int, allowed: int, effort: int) -> int:
    """`alloc_at` on a host of several nodes: zones of the wanted node, then those of others.

    Blocks of two types are avoided on the first node only: locality matters more.
    """
    preferred = preferred_zone(state, migratetype, node, allowed)
    if preferred < 0:
        return 0
    wanted = int(state.zones[preferred].node)
    for k in range(int(state.host[0].nr_zones)):
        zone = zone_at(state, node, k)
        if not may_serve(state, zone, migratetype, allowed):
            continue
        if effort == UNMIXED and state.zones[zone].node != wanted:
            break
        pfn = try_zone(state, zone, order, migratetype, effort)
        if pfn:
            count_by_node(state, wanted, int(state.zones[zone].node), 1, 1 << order)
            return pfn
    return 0


@part
def alloc_from_nodes(state: State, order: int, migratetype: int, node: int, allowed: int) -> int:
    """`alloc_easily` on a host of several nodes."""
    preferred = preferred_zone(state, migratetype, node, allowed)
    pfn = 0
    if preferred >= 0 and avoids_mixing_in(state, preferred):
        pfn = alloc_at_nodes(state, order, migratetype, node, allowed, UNMIXED)
    return pfn or alloc_at_nodes(state, order, migratetype, node, allowed, EASY)


@inline
def alloc_easily_near(state: State, order: int, migratetype: int, node: int, allowed: int) -> int:
    """Take a chunk from a zone that stays above its low watermark. Returns its first frame, or 0."""
    if state.host[0].nr_nodes > 1:
        return alloc_from_nodes(state, order, migratetype, node, allowed)
    if order:
        return alloc_easily(state, order, migratetype)
    pfn, _ = alloc_base_pages_easily(state, migratetype, 1)
    return pfn


@part
def alloc_hard(state: State, order: int, migratetype: int, node: int, allowed: int) -> int:
    """Take a chunk from a zone that stays above its min watermark. Returns its first frame, or 0."""
    if state.host[0].nr_nodes == 1:
        return alloc_at(state, order, migratetype, HARD)
    return alloc_at_nodes(state, order, migratetype, node, allowed, HARD)


@jit
def alloc_near(state: State, order: int, migratetype: int, node: int, allowed: int) -> int:
    """Take a chunk of 2**order frames for which a node is wanted. Returns its first frame, or 0."""
    pfn = alloc_easily_near(state, order, migratetype, node, allowed)
    if pfn == 0 and state.host[0].watermarks:
        return alloc_hard(state, order, migratetype, node, allowed)
    return pfn


@part
def alloc_block_from_nodes(state: State, migratetype: int, node: int, allowed: int) -> int:
    """`alloc_base_block` on a host of several nodes, where each of the pages wants the same node."""
    host = state.host[0]
    preferred = preferred_zone(state, migratetype, node, allowed)
    if host.nr_cpus or preferred < 0:
        return 0
    for k in range(int(host.nr_zones)):
        zone = zone_at(state, node, k)
        mark = int(state.zones[zone].low)
        if may_serve(state, zone, migratetype, allowed) and is_above(state, zone, 0, migratetype, mark):
            pfn = alloc_block_of(state, zone, migratetype, mark)
            if pfn:
                wanted, got = int(state.zones[preferred].node), int(state.zones[zone].node)
                count_by_node(state, wanted, got, BLOCK_PAGES, BLOCK_PAGES)
            return pfn
    return 0


@jit
def alloc_base_block_near(state: State, migratetype: int, node: int, allowed: int) -> int:
    """`alloc_base_block`, for pages that all want the same node."""
    if state.host[0].nr_nodes == 1:
        return alloc_base_block(state, migratetype)
    return alloc_block_from_nodes(state, migratetype, node, allowed)
