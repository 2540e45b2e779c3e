"""Pools of huge pages (hugetlb) that grow, shrink, overcommit and are demoted."""

import errno

from gmemlab.core.contig import alloc_giga
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    GIGA_BLOCKS,
    GIGA_ORDER,
    MOVABLE,
)
from gmemlab.core.page_alloc import alloc
from gmemlab.core.parts import part
from gmemlab.core.pools import drop_surplus, free_huge, pool_of, put_page, take_page
from gmemlab.core.state import State
from gmemlab.core.vmemmap import STRUCT_FRAMES, release_boot_frames, release_structs, restore_structs


@jit
def alloc_huge(state: State, order: int) -> int:
    """A huge page for a pool: 2 MiB from the free lists, 1 GiB from a run that is emptied if need be. Its first block, or 0.

    The kernel has memory compacted for 2 MiB, too (`alloc_buddy_hugetlb_folio`), but mostly in vain: over movable memory of
    which every other page was free it won 0 to 8 % of the holes in eleven runs of thirteen, 12 % and 57 % in the others (K22,
    measured on 6.18.44). What decides is what compaction tried before, which is not modelled: this is the lower bound.
    """
    if order == GIGA_ORDER:
        return alloc_giga(state, MOVABLE)
    return alloc(state, BLOCK_ORDER, MOVABLE) >> BLOCK_ORDER


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
