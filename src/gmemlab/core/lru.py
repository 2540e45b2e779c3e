"""Which pages are on Linux's LRU lists: where it looks how many pages of a block are movable, it counts these (K18).

All pages of page cache and of anonymous memory are, those of guest_memfd among them, though none of these moves
(`filemap_add_folio`; on the list of what cannot be evicted, G54), and so is what is freed late because somebody holds it. The
kernel's own memory and page structs are not. A CPU puts up to 31 pages on the lists later: here they are there at once.
"""

from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_PAGES,
    FRAME_DEFERRED,
    FRAME_ORPHAN,
    FRAME_USED,
    KIND_HOST,
    MOVABLE,
    SOURCE_POOL,
)
from gmemlab.core.state import State


@jit
def has_lru_pages(state: State, file: int) -> bool:
    """Whether the base pages of a file are on the LRU lists: those of a pool's pages are not, in the posted series either."""
    record = state.files[file]
    policy = state.policies[record.policy]
    return bool(policy.movable or (record.kind != KIND_HOST and policy.source != SOURCE_POOL))


@jit
def is_on_lru(state: State, slot: int) -> bool:
    """Whether a frame with details holds a page that is on the LRU lists (`PageLRU`)."""
    frame = state.frames[slot]
    if frame.kind == FRAME_USED:
        return has_lru_pages(state, int(frame.owner))
    return bool(frame.kind == FRAME_DEFERRED or frame.kind == FRAME_ORPHAN)


@jit
def nr_on_lru(state: State, block: int, most: int) -> int:
    """How many pages of a split block are on the LRU lists: up to `most`, where it stops counting."""
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    count = 0
    for slot in range(base, base + BLOCK_PAGES):
        if count == most:
            break
        count += 1 if is_on_lru(state, slot) else 0
    return count


@jit
def pages_alike(state: State, block: int, migratetype: int, enough: int) -> int:
    """Pages in use of a split block that count as of a type which wants it: up to `enough` of them (`try_to_claim_block`).

    Movable are those on the LRU lists. Others count as unmovable, in a block that is movable.
    """
    record = state.blocks[block]
    if migratetype == MOVABLE:
        return nr_on_lru(state, block, enough)
    if record.migratetype != MOVABLE:
        return 0
    used = BLOCK_PAGES - int(record.nr_free)
    if int(record.nr_movable) > used - enough:  # which are on the LRU lists
        return 0
    return used - nr_on_lru(state, block, used)
