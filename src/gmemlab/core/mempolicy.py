"""From which nodes the memory of a file comes: its NUMA policy, used only when memory is allocated (mm/mempolicy.c, 6.18).

One policy for all of a file (G53: mbind on all of it; guest_memfd of 6.18 itself knows none yet); none is that of the task, and
no task has one of its own: memory is local. What interleaves differs by memory: shmem and anonymous memory by index
(`interleave_nid`), guest_memfd by whatever the task interleaved to last (`interleave_nodes`: `kvm_gmem_get_folio` gives no
index), here one task for each file. Linux adds the number of a shmem inode to the index, which is 0 here, and the address of
anonymous memory, which starts at 0 here. The RFC's huge pages of guest_memfd ignored the policy of the inode (K15); it was
older than that policy, and here they have it.
"""

from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    KIND_SHMEM,
    NODES_BIND,
    NODES_INTERLEAVE,
    NODES_LOCAL,
    NODES_PREFERRED,
    NODES_SPREAD,
)
from gmemlab.core.nodes import alloc_base_block_near, next_node_in
from gmemlab.core.parts import part
from gmemlab.core.pcp import node_of_cpu
from gmemlab.core.state import State


@jit
def local_node(state: State, file: int) -> int:
    """The node of the task that allocates for a file: of the CPU that works now, or the file's home where there is none."""
    if state.host[0].nr_cpus:
        return node_of_cpu(state, int(state.host[0].cpu))
    return int(state.files[file].home)


@jit
def interleave_nid(allowed: int, index: int) -> int:
    """The node of these whose turn it is at a place (`interleave_nid`)."""
    node = next_node_in(-1, allowed)
    count = 0
    for bit in range(63):
        count += (allowed >> bit) & 1
    for _ in range(index % count):
        node = next_node_in(node, allowed)
    return node


@jit
def wanted_nodes(state: State, file: int, index: int, order: int) -> tuple[int, int]:
    """The node that a folio for page `index` wants, and the nodes that are allowed (`policy_nodemask`).

    A file that interleaves without an index goes on by one node, whether or not the folio can be had.
    """
    return nodes_of_policy(state, file, index, order) if state.host[0].nr_nodes > 1 else (0, 0)


@part
def nodes_of_policy(state: State, file: int, index: int, order: int) -> tuple[int, int]:
    """`wanted_nodes` of a host of several nodes."""
    record = state.files[file]
    mode = int(record.node_mode)
    allowed = int(record.allowed)
    if mode == NODES_BIND:
        return local_node(state, file), allowed
    if mode == NODES_PREFERRED:
        return next_node_in(-1, allowed), 0
    if mode == NODES_SPREAD:
        return (index >> BLOCK_ORDER) % int(state.host[0].nr_nodes), 0
    if mode == NODES_INTERLEAVE:
        if record.kind != KIND_GUEST_MEMFD:
            return interleave_nid(allowed, index >> order), 0
        record.il_prev = next_node_in(int(record.il_prev), allowed)
        return int(record.il_prev), 0
    return local_node(state, file), 0


@jit
def tries_wanted_first(state: State, file: int, order: int, node: int, allowed: int) -> bool:
    """Whether a huge page is sought on the wanted node alone, before others are asked (`alloc_pages_mpol`).

    Memory that the page cache allocates for guest_memfd has no index, by which Linux tells huge pages of other users apart.
    """
    record = state.files[file]
    ordinary = record.kind == KIND_SHMEM or record.kind == KIND_ANON
    if order != BLOCK_ORDER or not ordinary or record.node_mode == NODES_INTERLEAVE:
        return False
    return allowed == 0 or (allowed >> node) & 1 != 0


@jit
def alloc_page_block(state: State, migratetype: int, file: int, index: int) -> int:
    """The 512 frames that 512 base pages would be given, if these are one fresh block; else 0."""
    record = state.files[file]
    several = int(record.allowed) & (int(record.allowed) - 1)
    if record.node_mode == NODES_INTERLEAVE and several:
        return 0
    node, allowed = wanted_nodes(state, file, index, 0)
    return alloc_base_block_near(state, migratetype, node, allowed)


@jit
def set_nodes(state: State, file: int, mode: int, allowed: int, home: int) -> None:
    """Give a file its policy, and the home node of its tasks; memory that is there stays where it is (G53)."""
    record = state.files[file]
    record.node_mode = mode
    record.allowed = allowed
    record.home = home


@jit
def forget_nodes(state: State, file: int) -> None:
    """What a new file has: no policy; a new task interleaves to the node after node 0 first."""
    set_nodes(state, file, NODES_LOCAL, 0, 0)
    state.files[file].il_prev = 0
