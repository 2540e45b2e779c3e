"""The oracle's 1 GiB pages: a run of blocks that is free, or from which everything can be moved elsewhere (K21)."""

from gmemlab.core.layout import BLOCK_PAGES, CMA, GIGA_BLOCKS, GIGA_ORDER, ISOLATE, KIND_ANON, MOVABLE, UNMOVABLE
from oracle_files import Folio
from oracle_guests import part_huge, tell_moves
from oracle_memory import Memory
from oracle_page_alloc import LISTS
from oracle_snp import move_entry
from oracle_split import split_to_pages


def alloc_giga(memory: Memory, node: int = 0, allowed: set[int] | None = None) -> int | None:
    """The lowest aligned GiB in the first zone that has one and is not ZONE_MOVABLE; migratetypes do not change."""
    buddy = memory.buddy
    for number in buddy.asked(UNMOVABLE, node, allowed):
        zone = buddy.zones[number]
        if buddy.zone_free(number) - (1 << GIGA_ORDER) < zone.reserve:
            continue
        first = max(-(-zone.start // GIGA_BLOCKS), 1) * GIGA_BLOCKS
        for start in range(first, zone.end - GIGA_BLOCKS + 1, GIGA_BLOCKS):
            frames = range(start * BLOCK_PAGES, (start + GIGA_BLOCKS) * BLOCK_PAGES)
            if can_empty(memory, frames) and empty(memory, frames):
                return frames.start
    return None


def can_empty(memory: Memory, frames: range) -> bool:
    """Every frame is free, or of an idle, movable folio that is mapped as a whole; and no block is CMA, or isolated."""
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
    whole = len(folio.members) == 1 << folio.order
    return whole and not folio.busy() and folio.file.policy.movable and folio.huge is None


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
    """Move every folio out of a block; what finds no room as it is moves in pieces."""
    places = list(range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES))
    while places:
        folio = memory.users.get(places.pop(0))
        if folio is None:
            continue
        target = memory.buddy.alloc(folio.order, MOVABLE, memory.buddy.node_of(folio.pfn))
        if target is not None:
            old = folio.pfn
            move(memory, folio, target)
            memory.shrinker.requeue(folio)
            memory.buddy.free(old, folio.order)
        elif folio.order == 0:
            return False
        else:
            places = list(range(folio.pfn, (block + 1) * BLOCK_PAGES))
            split(memory, folio)  # zeros are free then
    return True


def split(memory: Memory, folio: Folio) -> None:
    """Into base pages; zeros of anonymous memory are freed (L17)."""
    if folio.file.policy.kind == KIND_ANON:
        split_to_pages(memory, folio)
    else:
        memory.cut(folio, [(page, 0) for page in range(folio.index, folio.index + (1 << folio.order))])
        part_huge(folio.file, folio.index // BLOCK_PAGES, memory.counters)


def move(memory: Memory, folio: Folio, target: int) -> None:
    """Other frames for a folio; its old ones are nobody's."""
    tell_moves(
        folio.file,
        folio.index,
        list(zip(folio.frames(), range(target, target + (1 << folio.order)), strict=True)),
        memory.counters,
    )
    for pfn in folio.frames():
        del memory.users[pfn]
    folio.pfn = target
    for offset, pfn in enumerate(folio.frames()):
        memory.users[pfn] = folio
        move_entry(folio.file, folio.file.pages[folio.index + offset].frame, pfn)
        folio.file.pages[folio.index + offset].frame = pfn
        copied_by_firmware = folio.file.confidential() and folio.index + offset not in folio.file.shared
        memory.counters["firmware_copies"] += copied_by_firmware
    memory.counters["moved"] += 1 << folio.order
