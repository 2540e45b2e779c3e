"""Pools of huge pages (hugetlb): each node's stack of idle pages, and pages that come back to it (mm/hugetlb.c, 6.18)."""

from gmemlab.core import layout
from gmemlab.core.buddy import free_block
from gmemlab.core.frames import own_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_ORDER,
    MAX_NODES,
    POOL,
)
from gmemlab.core.nodes import all_nodes, next_node_in, node_of, turn_of, zone_at
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State
from gmemlab.core.subpools import put_pages
from gmemlab.core.vmemmap import restore


@jit
def pool_of(order: int) -> int:
    """Row in `state.pools` of the pool of pages of this order."""
    return 1 if order == GIGA_ORDER else 0


@jit
def part_of(order: int, node: int) -> int:
    """Row in `state.node_pools` of a node's part of that pool."""
    return pool_of(order) * MAX_NODES + node


@jit
def count_pages(state: State, order: int, node: int, pages: int, surplus: int) -> None:
    """So many more pages are a pool's on a node, and so many more of these are surplus."""
    pool = state.pools[pool_of(order)]
    here = state.node_pools[part_of(order, node)]
    pool.nr += pages
    here.nr += pages
    pool.surplus += surplus
    here.surplus += surplus


@jit
def hold_page(state: State, block: int, order: int) -> None:
    """Make the blocks of a huge page a pool's; it is in no stack yet."""
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        own_block(state, piece, POOL, order, 0, 0)


@jit
def put_page(state: State, block: int, order: int) -> None:
    """Put a huge page on top of its node's stack of idle pages (`enqueue_hugetlb_folio`)."""
    here = state.node_pools[part_of(order, node_of(state, block))]
    hold_page(state, block, order)
    state.blocks[block].next = here.head
    here.head = block
    here.free += 1
    state.pools[pool_of(order)].free += 1


@jit
def take_page(state: State, order: int, node: int) -> int:
    """Take the idle huge page on top of a node's stack, which must not be empty. Returns its first block."""
    here = state.node_pools[part_of(order, node)]
    block = int(here.head)
    here.head = state.blocks[block].next
    here.free -= 1
    state.pools[pool_of(order)].free -= 1
    state.blocks[block].next = 0
    return block


@jit
def dequeue(state: State, order: int, node: int, allowed: int) -> int:
    """Take an idle huge page of an allowed node (0: of any), the nearest first (`dequeue_hugetlb_folio_nodemask`).

    Returns its first block, or 0.
    """
    for k in range(int(state.host[0].nr_zones)):
        near = int(state.zones[zone_at(state, node, k)].node)
        if (allowed == 0 or (allowed >> near) & 1) and state.node_pools[part_of(order, near)].head:
            return take_page(state, order, near)
    return 0


@jit
def next_to_free(state: State, order: int, allowed: int) -> int:
    """The node whose turn it is to give a page back (`hstate_next_node_to_free`)."""
    pool = state.pools[pool_of(order)]
    node = turn_of(int(pool.next_to_free), allowed)
    pool.next_to_free = next_node_in(node, allowed)
    return node


@jit
def take_to_free(state: State, order: int, allowed: int, surplus: bool) -> int:
    """Take an idle page out of the pool, nodes in turn (`remove_pool_hugetlb_folio`). Returns its first block, or 0.

    With `surplus` only nodes that have surplus pages are asked, and it is one of them.
    """
    for k in range(int(state.host[0].nr_nodes)):
        if (allowed >> k) & 1:
            node = next_to_free(state, order, allowed)
            here = state.node_pools[part_of(order, node)]
            if here.head and (here.surplus or not surplus):
                block = take_page(state, order, node)
                count_pages(state, order, node, -1, -1 if surplus else 0)
                return block
    return 0


@jit
def free_huge(state: State, block: int, order: int) -> None:
    """Give a huge page that no pool counts any more back to free memory."""
    if order == BLOCK_ORDER:
        free_pages(state, block << BLOCK_ORDER, order)
        return
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        free_block(state, piece)


@jit
def update_and_free(state: State, block: int, order: int) -> bool:
    """The same, once its page structs are restored; where frames for them are short, it comes back as a surplus page.

    So `__update_and_free_hugetlb_folio`, which Linux may leave to a worker that is at it at once. Returns whether it is free.
    """
    if state.pools[pool_of(order)].hvo and not restore(state, block, order, 0):
        count_pages(state, order, node_of(state, block), 1, 1)
        put_page(state, block, order)
        return False
    free_huge(state, block, order)
    return True


@part
def update_and_free_bulk(state: State, order: int, listed: int) -> None:
    """The same for a list, linked through `next` (`update_and_free_pages_bulk`).

    All page structs are restored before anything is freed. Where frames for them are short, the pages that have theirs are
    freed before the others are tried again; where none has, one after the other comes back, until one can be freed.
    """
    hvo = int(state.pools[pool_of(order)].hvo)
    while listed:
        restored = 0
        while listed and (hvo == 0 or restore(state, listed, order, 0)):
            block = listed
            listed = int(state.blocks[block].next)
            state.blocks[block].next = restored
            restored = block
        stuck = restored == 0
        while restored:
            block = restored
            restored = int(state.blocks[block].next)
            free_huge(state, block, order)
        while stuck and listed:
            block = listed
            listed = int(state.blocks[block].next)
            stuck = not update_and_free(state, block, order)


@jit
def drop_surplus(state: State, order: int, most: int) -> None:
    """Give up to `most` surplus pages back to free memory, nodes in turn, from the top of the idle ones."""
    listed = 0
    for _ in range(min(most, int(state.pools[pool_of(order)].surplus))):
        block = take_to_free(state, order, all_nodes(state), True)
        if block == 0:
            break
        state.blocks[block].next = listed
        listed = block
    update_and_free_bulk(state, order, listed)


@jit
def withdraw(state: State, order: int, pages: int) -> None:
    """So many promised pages are not needed any more; as many surplus pages go (`return_unused_surplus_pages`)."""
    state.pools[pool_of(order)].reserved -= pages
    drop_surplus(state, order, pages)


@part
def return_page(state: State, block: int, order: int, pooled: bool, file: int) -> None:
    """A whole huge page left its file for good: back to its pool, or block by block to the buddy allocator.

    The sub-pool of a guest_memfd keeps what was reserved at its creation (G70); for hugetlb memory a promise is used up with
    its page, unless its mount keeps so much, and where its node has surplus pages, it is freed as one of them (L19,
    `free_huge_folio`).
    """
    pool = state.pools[pool_of(order)]
    node = node_of(state, block)
    subpool = int(state.files[file].subpool) if pooled else 0
    if subpool and put_pages(state, subpool, 1) == 0:
        pool.reserved += 1
    if not pooled:
        free_huge(state, block, order)
    elif state.files[file].kind == layout.KIND_GUEST_MEMFD:
        put_page(state, block, order)
        state.files[file].reserved += 1
        pool.reserved += 1
    elif state.node_pools[part_of(order, node)].surplus:
        count_pages(state, order, node, -1, -1)
        update_and_free(state, block, order)
    else:
        put_page(state, block, order)
