"""The invariants of NUMA nodes: whose zones are asked in which order, what was counted, and each node's part of the pools."""

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import NODES_LOCAL, NODES_SPREAD, POOL
from gmemlab.core.nodes import node_of, zone_at
from gmemlab.core.pools import part_of, pool_of
from gmemlab.core.state import State


@jit
def audit_zonelist(state: State, node: int) -> bool:
    """Whether a node's list has every zone once, its own first, and those of no other node apart."""
    nr_zones = int(state.host[0].nr_zones)
    before = node
    for k in range(nr_zones):
        zone = zone_at(state, node, k)
        if not 0 <= zone < nr_zones:
            return False
        here = int(state.zones[zone].node)
        for earlier in range(k):
            other = zone_at(state, node, earlier)
            if other == zone or (here != before and state.zones[other].node == here):
                return False
        before = here
    return True


@jit
def audit_file_nodes(state: State, file: int) -> bool:
    """Whether a file's policy, and its home, are of nodes that the host has."""
    record = state.files[file]
    nodes = 1 << int(state.host[0].nr_nodes)
    named = NODES_LOCAL < record.node_mode < NODES_SPREAD
    return bool(0 <= record.allowed < nodes and 1 << int(record.home) < nodes and (record.allowed or not named))


@jit
def audit_nodes(state: State) -> tuple[int, int]:
    """Check the nodes' zones and counters, and the policies of all files."""
    nr_nodes = int(state.host[0].nr_nodes)
    for zone in range(int(state.host[0].nr_zones)):
        if not 0 <= state.zones[zone].node < nr_nodes:
            return 29, zone
    hit, miss, foreign = 0, 0, 0
    for node in range(nr_nodes):
        if not audit_zonelist(state, node):
            return 29, node
        hit += int(state.nodes[node].hit)
        miss += int(state.nodes[node].miss)
        foreign += int(state.nodes[node].foreign)
    if miss != foreign or miss != state.tally[layout.TALLY_NUMA_MISS] or hit != state.tally[layout.TALLY_NUMA_HIT]:
        return 30, 0
    for file in range(1, int(state.host[0].next_file)):
        if state.files[file].alive and not audit_file_nodes(state, file):
            return 31, file
    return 0, 0


@jit
def audit_pool(state: State, order: int) -> tuple[int, int]:
    """Walk the stacks of one pool, and add up its nodes' parts.

    With HVO a node may have more surplus pages than pages: idle ones that could not be freed count as surplus, and the next
    time one of them leaves as if it were the pool's own (`remove_pool_hugetlb_folio`, 6.18).
    """
    pool = state.pools[pool_of(order)]
    nr, free, surplus = 0, 0, 0
    for node in range(int(state.host[0].nr_nodes)):
        part = state.node_pools[part_of(order, node)]
        found = 0
        block = int(part.head)
        while block:
            record = state.blocks[block]
            if record.kind != POOL or record.order != order or node_of(state, block) != node or found > part.free:
                return 12, block
            found += 1
            block = int(record.next)
        if found != part.free or part.free > part.nr or part.surplus < 0 or (part.surplus > part.nr and pool.hvo == 0):
            return 12, node
        nr += int(part.nr)
        free += found
        surplus += int(part.surplus)
    sums = nr == pool.nr and free == pool.free and surplus == pool.surplus and surplus <= nr
    return (0, 0) if sums and pool.reserved >= 0 else (12, order)
