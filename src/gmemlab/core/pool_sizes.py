"""Pools of huge pages (hugetlb) that grow, shrink, overcommit and are demoted."""

import errno

from gmemlab.core.contig import alloc_giga
from gmemlab.core.effort import alloc_trying
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GFP_DIRECT,
    GFP_KSWAPD,
    GFP_RETRY_MAYFAIL,
    GIGA_BLOCKS,
    GIGA_ORDER,
    MOVABLE,
)
from gmemlab.core.nodes import all_nodes, next_node_in, node_of, turn_of
from gmemlab.core.parts import part
from gmemlab.core.pools import (
    count_pages,
    hold_page,
    next_to_free,
    part_of,
    pool_of,
    put_page,
    take_page,
    take_to_free,
    update_and_free,
    update_and_free_bulk,
)
from gmemlab.core.state import State
from gmemlab.core.vmemmap import optimize, restore

GFP_POOL = GFP_KSWAPD | GFP_DIRECT | GFP_RETRY_MAYFAIL


@jit
def alloc_huge(state: State, order: int, node: int, allowed: int) -> int:
    """A huge page for a pool: 2 MiB from the free lists, or what compaction and reclaim win (`alloc_buddy_hugetlb_folio`).

    1 GiB from a run that is emptied if need be. Returns its first block, or 0. That a node which had none is tried less hard
    until it has one again (`node_alloc_noretry`) is not modelled.
    """
    if order == GIGA_ORDER:
        return alloc_giga(state, node, allowed)
    return alloc_trying(state, BLOCK_ORDER, MOVABLE, GFP_POOL, node, allowed) >> BLOCK_ORDER


@part
def alloc_surplus(state: State, order: int, node: int, allowed: int) -> int:
    """A huge page beyond the pool's size, if it may have one more (`alloc_surplus_hugetlb_folio`). Its first block, or 0.

    A pool of 1 GiB pages never may (`resize_pool`); what it has too many once it shrank in use is surplus all the same.
    """
    pool = state.pools[pool_of(order)]
    if pool.surplus >= pool.overcommit:
        return 0
    block = alloc_huge(state, order, node, allowed)
    if block:
        hold_page(state, block, order)
        if pool.hvo:
            optimize(state, block, order)
        count_pages(state, order, node_of(state, block), 1, 1)
    return block


@part
def promise(state: State, order: int, pages: int, node: int) -> bool:
    """Have the pool promise so many pages, surplus ones as far as free ones are short (`gather_surplus_pages`); all or none.

    Surplus pages are of the node, or of others in its order. What is got is linked through `next` meanwhile.
    """
    pool = state.pools[pool_of(order)]
    short = int(pool.reserved) + pages - int(pool.free)
    newest = 0
    enough = True
    for _ in range(short):
        block = alloc_surplus(state, order, node, 0)
        if block == 0:
            enough = False
            break
        state.blocks[block].next = newest
        newest = block
    while newest:
        block = newest
        newest = int(state.blocks[block].next)
        if enough:
            put_page(state, block, order)
        else:
            count_pages(state, order, node_of(state, block), -1, -1)
            update_and_free(state, block, order)
    if enough:
        pool.reserved += pages
    return enough


@jit
def next_to_alloc(state: State, order: int, allowed: int) -> int:
    """The node on which the pool grows next (`hstate_next_node_to_alloc`)."""
    pool = state.pools[pool_of(order)]
    node = turn_of(int(pool.next_to_alloc), allowed)
    pool.next_to_alloc = next_node_in(node, allowed)
    return node


@jit
def alloc_interleaved(state: State, order: int, nodes: int) -> int:
    """A huge page from the node whose turn it is, or the next that has one (`alloc_pool_huge_folio`). Its first block, or 0."""
    for k in range(int(state.host[0].nr_nodes)):
        if (nodes >> k) & 1:
            node = next_to_alloc(state, order, nodes)
            block = alloc_huge(state, order, node, 1 << node)
            if block:
                return block
    return 0


@jit
def make_surplus(state: State, order: int, nodes: int, pages: int) -> None:
    """Have up to so many more pages of a pool be surplus, nodes in turn; or fewer, if negative (`adjust_pool_surplus`)."""
    step = 1 if pages > 0 else -1
    left = abs(pages)
    missed = 0
    while left and missed < state.host[0].nr_nodes:
        node = next_to_free(state, order, nodes) if step > 0 else next_to_alloc(state, order, nodes)
        here = state.node_pools[part_of(order, node)]
        missed += 1
        if (step > 0 and here.surplus < here.nr) or (step < 0 and here.surplus > 0):
            count_pages(state, order, node, 0, step)
            missed = 0
            left -= 1


@jit
def needed_pages(state: State, order: int) -> int:
    """How many pages that are not surplus a pool needs, for what is in use or promised (`set_max_huge_pages`, 6.18).

    Where more pages are idle than are the pool's own, surplus ones are idle, too, and count last.
    """
    pool = state.pools[pool_of(order)]
    own = int(pool.nr - pool.surplus)
    idle = int(pool.free)
    if idle > own:
        idle = max(0, idle - int(pool.surplus))
    return int(pool.reserved) + own - idle


@part
def resize_pool(state: State, order: int, count: int, overcommit: int, node: int) -> int:
    """Give a pool, or (`node` from 0 on) a node's part of it, its size (`set_max_huge_pages`). Returns 0 or the errno.

    And say how many surplus pages the pool may have beyond. It first counts surplus pages as its own, then grows as far as
    memory goes. Idle pages leave a pool that is too large, unless memory for their page structs is short; what is in use or
    promised beyond its size, and what could not leave, becomes surplus. EINVAL for surplus pages of 1 GiB
    (`nr_overcommit_hugepages_store`).
    """
    pool = state.pools[pool_of(order)]
    if count < 0 or overcommit < 0 or (overcommit and order == GIGA_ORDER):
        return errno.EINVAL
    pool.overcommit = overcommit
    nodes = all_nodes(state)
    if node >= 0:
        nodes = 1 << node
        here = state.node_pools[part_of(order, node)]
        count += int(pool.nr - pool.surplus - (here.nr - here.surplus))
    make_surplus(state, order, nodes, -max(0, min(int(pool.surplus), count - int(pool.nr - pool.surplus))))
    missing = count - int(pool.nr - pool.surplus)
    if missing > 0:
        grow_pool(state, order, missing, int(pool.hvo), nodes)
    least = max(count, needed_pages(state, order))
    listed = 0
    while pool.nr - pool.surplus > least:
        block = take_to_free(state, order, nodes, False)
        if block == 0:
            break
        state.blocks[block].next = listed
        listed = block
    update_and_free_bulk(state, order, listed)
    make_surplus(state, order, nodes, max(0, int(pool.nr - pool.surplus) - count))
    return 0


@jit
def add_pages(state: State, order: int, newest: int) -> None:
    """Have HVO work on new pages, linked through `next` newest first, then stack them (`prep_and_add_allocated_folios`)."""
    block = newest if state.pools[pool_of(order)].hvo else 0
    while block:
        optimize(state, block, order)
        block = int(state.blocks[block].next)
    while newest:
        block = newest
        newest = int(state.blocks[block].next)
        count_pages(state, order, node_of(state, block), 1, 0)
        put_page(state, block, order)


@part
def grow_pool(state: State, order: int, count: int, hvo: int, nodes: int) -> tuple[int, int]:
    """Add up to `count` huge pages to a pool from free memory of these nodes (0: of all), in turn; with or without HVO.

    What HVO gives back is there when all have been taken. Returns (ENOMEM or 0, pages added).
    """
    pool = state.pools[pool_of(order)]
    pool.hvo = hvo
    newest = 0
    done = 0
    while done < count:
        block = alloc_interleaved(state, order, nodes or all_nodes(state))
        if block == 0:
            break
        hold_page(state, block, order)
        state.blocks[block].next = newest
        newest = block
        done += 1
    add_pages(state, order, newest)
    return (0 if done == count else errno.ENOMEM), done


@jit
def take_to_demote(state: State, node: int, most: int) -> int:
    """Take up to so many idle 1 GiB pages from a node's stack, promised or not. Returns the last, which links the others."""
    newest = 0
    for _ in range(most):
        if state.node_pools[part_of(GIGA_ORDER, node)].head == 0:
            break
        first = take_page(state, GIGA_ORDER, node)
        count_pages(state, GIGA_ORDER, node, -1, 0)
        state.blocks[first].next = newest
        newest = first
    return newest


@jit
def link_pieces(state: State, first: int, last: int) -> int:
    """Link the 2 MiB pages of a 1 GiB page behind `last` (0: none), the highest first. The lowest, which is the last now."""
    for block in range(first + GIGA_BLOCKS - 1, first - 1, -1):
        hold_page(state, block, BLOCK_ORDER)
        state.blocks[block].next = 0
        if last:
            state.blocks[last].next = block
        last = block
    return last


@jit
def demote_pages_of(state: State, node: int, most: int) -> tuple[int, int]:
    """Turn up to so many idle 1 GiB pages of a node into 2 MiB pages (`demote_free_hugetlb_folios`). Returns (errno, how many).

    With HVO, page structs of all of them are restored first, the last page's first; of those before one for which that fails
    nothing is done, and they go back. The lowest piece of the page that came first is used first then.
    """
    giga = state.pools[pool_of(GIGA_ORDER)]
    listed = take_to_demote(state, node, most)
    newest, last, done = 0, 0, 0
    while listed and (giga.hvo == 0 or restore(state, listed, GIGA_ORDER, 0)):
        first = listed
        listed = int(state.blocks[first].next)
        last = link_pieces(state, first, last)
        newest = newest or first + GIGA_BLOCKS - 1
        done += 1
    if done:
        state.pools[pool_of(BLOCK_ORDER)].hvo = giga.hvo
        add_pages(state, BLOCK_ORDER, newest)
    error = errno.ENOMEM if listed else 0
    while listed:
        first = listed
        listed = int(state.blocks[first].next)
        count_pages(state, GIGA_ORDER, node, 1, 0)
        put_page(state, first, GIGA_ORDER)
    return error, done


@jit
def demote_nodes(state: State, most: int, allowed: int) -> tuple[int, int]:
    """Turn up to so many 1 GiB pages into 2 MiB pages, all of a node before those of the next (`demote_pool_huge_page`).

    Returns (errno, how many): EBUSY for none.
    """
    done = 0
    for k in range(int(state.host[0].nr_nodes)):
        if done == most or (allowed >> k) & 1 == 0:
            continue
        node = next_to_free(state, GIGA_ORDER, allowed)
        error, pages = demote_pages_of(state, node, most - done)
        done += pages
        if error:
            return error, done
    return (0 if done else errno.EBUSY), done


@part
def demote(state: State, count: int, nodes: int) -> tuple[int, int]:
    """Turn up to `count` idle 1 GiB pages of a node (0: of any) into 2 MiB pages (`demote_store`, L20).

    Where as many pages are idle as are promised, nothing more is done, be they this node's or not. Else promised ones go with
    the others, which leaves promises that nobody can keep: as seen on 6.18.44. Returns (errno, pages demoted): ENOMEM where
    frames for page structs are short, EBUSY where promises are left only; too few pages are no error.
    """
    giga = state.pools[pool_of(GIGA_ORDER)]
    done = 0
    while done < count:
        idle = 0
        for node in range(int(state.host[0].nr_nodes)):
            if nodes == 0 or (nodes >> node) & 1:
                idle += int(state.node_pools[part_of(GIGA_ORDER, node)].free)
        if idle == giga.reserved:
            break
        error, pages = demote_nodes(state, count - done, nodes or all_nodes(state))
        done += pages
        if error:
            return error, done
    return 0, done
