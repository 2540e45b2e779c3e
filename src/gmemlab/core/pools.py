"""Pools of huge pages (hugetlb): growth, reservation, taking and giving back."""

import errno

from gmemlab.core import decisions, layout
from gmemlab.core.buddy import free_block
from gmemlab.core.contig import alloc_giga
from gmemlab.core.effort import alloc_trying
from gmemlab.core.frames import own_block
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_BLOCKS,
    GIGA_ORDER,
    MOVABLE,
    POOL,
)
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State
from gmemlab.core.vmemmap import STRUCT_FRAMES, release_boot_frames, release_structs, restore_structs


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
def alloc_huge(state: State, order: int) -> int:
    """A huge page for a pool, from the free lists or after compaction (`alloc_buddy_hugetlb_folio`). Its first block, or 0."""
    if order == GIGA_ORDER:
        return alloc_giga(state, MOVABLE)
    return alloc_trying(state, BLOCK_ORDER, MOVABLE, decisions.pool_compactions()) >> BLOCK_ORDER


@jit
def free_huge(state: State, block: int, order: int) -> None:
    """Give a huge page that no pool counts any more back to free memory."""
    if order == BLOCK_ORDER:
        free_pages(state, block << BLOCK_ORDER, order)
        return
    for piece in range(block, block + (1 << (order - BLOCK_ORDER))):
        free_block(state, piece)


@part
def alloc_surplus(state: State, order: int) -> int:
    """A huge page beyond the pool's size, if it may have one more (`alloc_surplus_hugetlb_folio`). Its first block, or 0."""
    pool = state.pools[pool_of(order)]
    if pool.surplus >= pool.overcommit:
        return 0
    block = alloc_huge(state, order)
    if block:
        pool.surplus += 1
        pool.nr += 1
    return block


@part
def promise(state: State, order: int, pages: int) -> bool:
    """Have the pool promise so many pages, surplus ones as far as free ones are short (`gather_surplus_pages`); all or none."""
    pool = state.pools[pool_of(order)]
    short = int(pool.reserved) + pages - int(pool.free)
    for got in range(short):
        block = alloc_surplus(state, order)
        if block == 0:
            drop_surplus(state, order, got)
            return False
        put_page(state, block, order)
    pool.reserved += pages
    return True


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
def resize_pool(state: State, order: int, count: int, overcommit: int) -> int:
    """Give a pool its size, and how many surplus pages it may have beyond (`set_max_huge_pages`). Returns 0 or the errno.

    It first counts surplus pages as its own, then grows as far as memory goes. Idle pages leave a pool that is too large; what
    is in use or promised beyond its size becomes surplus. EOPNOTSUPP for a pool with HVO, whose page structs would have to be
    restored first.
    """
    pool = state.pools[pool_of(order)]
    if count < 0 or overcommit < 0:
        return errno.EINVAL
    if pool.hvo:
        return errno.EOPNOTSUPP
    pool.overcommit = overcommit
    pool.surplus -= max(0, min(int(pool.surplus), count - int(pool.nr - pool.surplus)))
    missing = count - int(pool.nr - pool.surplus)
    if missing > 0:
        grow_pool(state, order, missing, 0)
    least = max(count, int(pool.reserved + pool.nr - pool.free))
    while pool.nr - pool.surplus > least and pool.head:
        free_huge(state, take_page(state, order), order)
        pool.nr -= 1
    pool.surplus += max(0, int(pool.nr - pool.surplus) - count)
    return 0


@part
def grow_pool(state: State, order: int, count: int, hvo: int) -> tuple[int, int]:
    """Add up to `count` huge pages to a pool from free memory. Returns (ENOMEM or 0, pages added)."""
    pool = state.pools[pool_of(order)]
    pool.hvo = hvo
    for done in range(count):
        block = alloc_huge(state, order)
        if block == 0:
            return errno.ENOMEM, done
        pool.nr += 1
        put_page(state, block, order)
        if hvo:
            release_boot_frames(state, block, order)
    return 0, count


@jit
def restore_for_demotion(state: State, first: int) -> bool:
    """Take the frames for all page structs of a 1 GiB page whose HVO is undone; False, and nothing taken, if short (K5)."""
    for block in range(first, first + GIGA_BLOCKS):
        missing = STRUCT_FRAMES - 1 if block == first else STRUCT_FRAMES
        if not restore_structs(state, block, missing):
            for other in range(first, block):
                release_structs(state, other, STRUCT_FRAMES - 1 if other == first else STRUCT_FRAMES)
            return False
    return True


@part
def demote(state: State, count: int) -> tuple[int, int]:
    """Turn up to `count` idle 1 GiB pages that are promised to nobody into 2 MiB pages (`demote_store`, L20).

    With HVO, the structs of the 1 GiB page are restored first, then those of each 2 MiB page given back. Returns (errno, 1 GiB
    pages demoted): ENOMEM where frames for them are short; too few pages are no error.
    """
    giga = state.pools[pool_of(GIGA_ORDER)]
    for done in range(count):
        if giga.free <= giga.reserved:
            return 0, done
        first = int(giga.head)
        if giga.hvo and state.host[0].struct_frame and not restore_for_demotion(state, first):
            return errno.ENOMEM, done
        take_page(state, GIGA_ORDER)
        giga.nr -= 1
        state.pools[pool_of(BLOCK_ORDER)].hvo = giga.hvo
        state.pools[pool_of(BLOCK_ORDER)].nr += GIGA_BLOCKS
        for block in range(first + GIGA_BLOCKS - 1, first - 1, -1):  # the lowest is used first
            put_page(state, block, BLOCK_ORDER)
        if giga.hvo and state.host[0].struct_frame:
            for block in range(first, first + GIGA_BLOCKS):
                release_structs(state, block, STRUCT_FRAMES - 1)
    return 0, count


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
