"""Isolated blocks: nobody gets what is free in them, or becomes so (mm/page_isolation.c, 6.18).

It lies on the lists of type ISOLATE and does not count as free. A block remembers the type that it had.
"""

from gmemlab.core import layout
from gmemlab.core.buddy import free_block, insert_block, move_free_chunks
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, ISOLATE, MAX_PAGE_ORDER, SPLIT
from gmemlab.core.lists import count_free, list_index, push_block, remove_block
from gmemlab.core.state import State


@jit
def pair_around(state: State, block: int) -> int:
    """First block of the free chunk of order 10 that a block is part of; 0 where it is of none."""
    record = state.blocks[block]
    if record.kind != layout.FREE or record.order == BLOCK_ORDER:
        return 0
    return block if record.order == MAX_PAGE_ORDER else block - 1


@jit
def change_type(state: State, block: int, new: int) -> None:
    """Give a block another type, and what is free in it other lists (`__move_freepages_block_isolate`).

    A chunk of order 10 is freed in halves; others go to the tails.
    """
    record = state.blocks[block]
    zone, old = int(record.zone), int(record.migratetype)
    pair = pair_around(state, block)
    if pair:
        remove_block(state, list_index(zone, old, MAX_PAGE_ORDER), pair)
        count_free(state, zone, old, -2 * BLOCK_PAGES)
        record.migratetype = new
        free_block(state, pair)
        free_block(state, pair + 1)
        return
    if record.kind == layout.FREE:
        remove_block(state, list_index(zone, old, BLOCK_ORDER), block)
        push_block(state, list_index(zone, new, BLOCK_ORDER), block, BLOCK_ORDER, True)
        count_free(state, zone, old, -BLOCK_PAGES)
        count_free(state, zone, new, BLOCK_PAGES)
    elif record.kind == SPLIT:
        move_free_chunks(state, zone, block, old, new)
    record.migratetype = new


@jit
def isolate_block(state: State, block: int) -> None:
    """Keep what is free in a block, and what becomes so, from everyone (`set_migratetype_isolate`)."""
    origin = int(state.blocks[block].migratetype)
    change_type(state, block, ISOLATE)
    state.blocks[block].origin = origin


@jit
def has_free_neighbour(state: State, block: int) -> bool:
    """Whether the other half of a free block's order 10 is free, too, and not isolated."""
    buddy = block ^ 1
    if buddy == 0 or buddy > state.host[0].nr_blocks:
        return False
    other = state.blocks[buddy]
    if other.kind != layout.FREE or other.order != BLOCK_ORDER or other.zone != state.blocks[block].zone:
        return False
    return bool(other.migratetype != ISOLATE)


@jit
def release_block(state: State, block: int) -> None:
    """Give an isolated block its type again, and everyone what is free in it (`unset_migratetype_isolate`).

    A free one is freed anew where it could merge with its neighbour.
    """
    record = state.blocks[block]
    zone, origin = int(record.zone), int(record.origin)
    if record.kind == layout.FREE and record.order == BLOCK_ORDER and has_free_neighbour(state, block):
        remove_block(state, list_index(zone, ISOLATE, BLOCK_ORDER), block)
        count_free(state, zone, ISOLATE, -BLOCK_PAGES)
        record.migratetype = origin
        count_free(state, zone, origin, BLOCK_PAGES)
        insert_block(state, block, True)
    else:
        change_type(state, block, origin)
    record.origin = 0


@jit
def take_isolated_block(state: State, block: int) -> None:
    """Take an isolated block that is free as a whole, or the pair of which it is the first, off its list for good."""
    record = state.blocks[block]
    zone, order = int(record.zone), int(record.order)
    remove_block(state, list_index(zone, ISOLATE, order), block)
    count_free(state, zone, ISOLATE, -(1 << order))
