"""Pools of huge pages (hugetlb): their stacks of idle pages, and pages that come back to them."""

from gmemlab.core import layout
from gmemlab.core.buddy import free_block
from gmemlab.core.frames import own_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_ORDER,
    POOL,
)
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def pool_of(order: int) -> int:
    """Row in `state.pools` of the pool of pages of this order."""
    return 1 if order == GIGA_ORDER else 0


@jit
def put_page(state: State, block: int, order: int) -> None:
    """Put a huge page on top of its pool's stack of idle pages."""
    pool = state.pools[pool_of(order)]
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        own_block(state, piece, POOL, order, 0, 0)
    state.blocks[block].next = pool.head
    pool.head = block
    pool.free += 1


@jit
def take_page(state: State, order: int) -> int:
    """Take the idle huge page on top of a pool's stack, which must not be empty. Returns its first block."""
    pool = state.pools[pool_of(order)]
    block = int(pool.head)
    pool.head = state.blocks[block].next
    pool.free -= 1
    state.blocks[block].next = 0
    return block


@jit
def free_huge(state: State, block: int, order: int) -> None:
    """Give a huge page that no pool counts any more back to free memory."""
    if order == BLOCK_ORDER:
        free_pages(state, block << BLOCK_ORDER, order)
        return
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        free_block(state, piece)


@jit
def drop_surplus(state: State, order: int, most: int) -> None:
    """Give up to `most` surplus pages back to free memory, from the top of the idle ones."""
    pool = state.pools[pool_of(order)]
    for _ in range(min(most, int(pool.surplus))):
        if pool.head == 0:
            return
        free_huge(state, take_page(state, order), order)
        pool.surplus -= 1
        pool.nr -= 1


@jit
def withdraw(state: State, order: int, pages: int) -> None:
    """So many promised pages are not needed any more; as many surplus pages go (`return_unused_surplus_pages`)."""
    state.pools[pool_of(order)].reserved -= pages
    drop_surplus(state, order, pages)


@part
def return_page(state: State, block: int, order: int, pooled: bool, file: int) -> None:
    """A whole huge page left its file for good: back to its pool, or block by block to the buddy allocator.

    The sub-pool of a guest_memfd keeps what was reserved at its creation (G70); for hugetlb memory a promise is used up with
    its page, and surplus pages are freed first (L19, `free_huge_folio`).
    """
    pool = state.pools[pool_of(order)]
    if not pooled:
        free_huge(state, block, order)
    elif state.files[file].kind == layout.KIND_GUEST_MEMFD:
        put_page(state, block, order)
        state.files[file].reserved += 1
        pool.reserved += 1
    elif pool.surplus:
        free_huge(state, block, order)
        pool.surplus -= 1
        pool.nr -= 1
    else:
        put_page(state, block, order)
