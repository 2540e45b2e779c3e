"""The oracle's 1 GiB pages: a run of blocks that is free, or from which everything can be moved elsewhere (K21)."""

from gmemlab.core.layout import BLOCK_PAGES, CMA, GIGA_BLOCKS, ISOLATE, KIND_CACHE, MOVABLE, UNMOVABLE
from oracle_effort import KERNEL, alloc_with
from oracle_files import Folio
from oracle_memory import Memory
from oracle_migrate import is_mapped_in_part, move, split
from oracle_page_alloc import LISTS


def alloc_giga(memory: Memory, node: int = 0, allowed: set[int] | None = None) -> int | None:
    """The lowest aligned GiB in the first zone that has one and is not ZONE_MOVABLE; migratetypes do not change."""
    buddy = memory.buddy
    for number in buddy.asked(UNMOVABLE, node, allowed):
        zone = buddy.zones[number]
        first = max(-(-zone.start // GIGA_BLOCKS), 1) * GIGA_BLOCKS
        for start in range(first, zone.end - GIGA_BLOCKS + 1, GIGA_BLOCKS):
            frames = range(start * BLOCK_PAGES, (start + GIGA_BLOCKS) * BLOCK_PAGES)
            if can_empty(memory, frames) and empty(memory, frames):
                return frames.start
    return None


def can_empty(memory: Memory, frames: range) -> bool:
    """Every frame is free, or of an idle, movable folio; and no block is CMA, or isolated."""
    if any(memory.buddy.blocktype[pfn // BLOCK_PAGES] in (CMA, ISOLATE) for pfn in frames[::BLOCK_PAGES]):
        return False
    lists = memory.buddy.kept().items()
    kept = {pfn: 1 << LISTS[index][0] for (_, _, index), pfns in lists for pfn in pfns}
    pfn = frames.start
    while pfn < frames.stop:
        folio = memory.users.get(pfn)
        if pfn in memory.buddy.chunks:
            pfn += 1 << memory.buddy.chunks[pfn]
        elif pfn in kept:
            pfn += kept[pfn]
        elif folio is not None and is_movable(folio):
            pfn += 1 << folio.order
        else:
            return False
    return True


def is_movable(folio: Folio) -> bool:
    return not folio.busy() and folio.file.policy.movable and folio.huge is None


def empty(memory: Memory, frames: range) -> bool:
    """Isolate the blocks and move everything out, ascending; where that fails, all of it is everybody's again."""
    buddy = memory.buddy
    blocks = range(frames.start // BLOCK_PAGES, frames.stop // BLOCK_PAGES)
    for block in blocks:
        buddy.isolate(block)
    buddy.drain_zone(buddy.zone_of(frames.start))
    done = all(empty_block(memory, block) for block in blocks)
    if done:
        for pfn in frames:
            if pfn in buddy.chunks:
                buddy.take(pfn)
    for block in blocks:
        buddy.release(block)
    return done


def empty_block(memory: Memory, block: int) -> bool:
    """Clean page cache is dropped, all else moves; what finds no room as it is, or is mapped in part, in pieces."""
    for pfn in range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES):
        while (folio := memory.users.get(pfn)) is not None:
            if folio.file.policy.kind == KIND_CACHE:
                memory.leave(folio)
            elif not move_elsewhere(memory, folio, MOVABLE, KERNEL | {"retry"}):
                if folio.order == 0:
                    return False
                split(memory, folio)
    return True


def move_elsewhere(memory: Memory, folio: Folio, mt: int, flags: frozenset[str]) -> bool:
    """Move a folio as it is, if it is mapped as a whole and there is room."""
    if is_mapped_in_part(folio):
        return False
    folio.references += 1  # isolated: nobody else moves it meanwhile
    mine = flags - {"kswapd"} if folio.order else flags
    target = alloc_with(memory, folio.order, mt, mine, memory.buddy.node_of(folio.pfn))
    folio.references -= 1
    if target is None:
        return False
    old = folio.pfn
    move(memory, folio, target)
    memory.shrinker.requeue(folio)
    memory.buddy.free(old, folio.order)
    return True
