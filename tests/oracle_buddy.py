"""The oracle's page allocator: free lists that are Python lists of page frame numbers, and nothing else.

Rules: K18, K19 (mm/page_alloc.c as of 6.18). Index 0 of a list is its head. Frame number = block * 512 + offset.
"""

from collections.abc import Callable
from dataclasses import dataclass

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    MAX_PAGE_ORDER,
    MOVABLE,
    NR_MIGRATETYPES,
    NR_ORDERS,
    RECLAIMABLE,
    UNMOVABLE,
    ZONE_MOVABLE,
)

FALLBACKS = {
    UNMOVABLE: (RECLAIMABLE, MOVABLE),
    MOVABLE: (RECLAIMABLE, UNMOVABLE),
    RECLAIMABLE: (UNMOVABLE, MOVABLE),
}


@dataclass(frozen=True)
class Zone:
    """Blocks [start, end) of one kind; `reserve` pages stay free after every allocation."""

    start: int
    end: int
    kind: int
    reserve: int


class Buddy:
    """Free lists per zone, migratetype and order. `count_movable(block)` counts the used, movable frames of a block."""

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        count_movable: Callable[[int], int],
    ) -> None:
        self.zones = [Zone(*zone) for zone in zones]
        self.nr_blocks = nr_blocks
        self.count_movable = count_movable
        self.lists: list[list[list[list[int]]]] = [
            [[[] for _ in range(NR_ORDERS)] for _ in range(NR_MIGRATETYPES)] for _ in zones
        ]
        self.chunks: dict[int, int] = {}  # head of every free chunk -> its order
        self.blocktype = [MOVABLE if self.zone_of_block(block) is not None else 0 for block in range(nr_blocks + 1)]
        free = {b for b in range(1, nr_blocks + 1) if b not in reserved_blocks and self.zone_of_block(b) is not None}
        for block in sorted(free):
            if block % 2 == 1 and self.is_pair(block - 1, free):
                continue
            self.put(block * BLOCK_PAGES, 10 if block % 2 == 0 and self.is_pair(block, free) else 9, tail=True)

    def is_pair(self, even: int, free: set[int]) -> bool:
        return {even, even + 1} <= free and self.zone_of_block(even) == self.zone_of_block(even + 1)

    # -- where things are ---------------------------------------------------------------------------------------------
    def zone_of_block(self, block: int) -> int | None:
        for number, zone in enumerate(self.zones):
            if zone.start <= block < zone.end:
                return number
        return None

    def zone_of(self, pfn: int) -> int:
        zone = self.zone_of_block(pfn // BLOCK_PAGES)
        assert zone is not None, f"frame {pfn} is in no zone"
        return zone

    def zone_free(self, zone: int) -> int:
        """Free pages of one zone, counted anew."""
        return sum(len(pfns) << order for lists in self.lists[zone] for order, pfns in enumerate(lists))

    def is_buddy(self, pfn: int, order: int, zone: int) -> bool:
        """Is `pfn` the head of a free chunk of exactly `order` in `zone`?"""
        return self.chunks.get(pfn) == order and self.zone_of(pfn) == zone

    # -- lists --------------------------------------------------------------------------------------------------------
    def put(self, pfn: int, order: int, tail: bool) -> None:
        chunks = self.lists[self.zone_of(pfn)][self.blocktype[pfn // BLOCK_PAGES]][order]
        chunks.insert(len(chunks) if tail else 0, pfn)
        self.chunks[pfn] = order

    def take(self, pfn: int) -> int:
        """Take the chunk that starts at `pfn` off its list; its order."""
        order = self.chunks.pop(pfn)
        self.lists[self.zone_of(pfn)][self.blocktype[pfn // BLOCK_PAGES]][order].remove(pfn)
        return order

    def take_part(self, pfn: int, order: int) -> int:
        """Take a free chunk, keep its first 2^order frames, put the upper halves back at the head of their lists."""
        large = self.take(pfn)
        while large > order:
            large -= 1
            self.put(pfn + (1 << large), large, tail=False)
        return pfn

    # -- allocation ---------------------------------------------------------------------------------------------------
    def may_use(self, zone: Zone, mt: int) -> bool:
        return zone.kind != ZONE_MOVABLE or mt == MOVABLE

    def smallest(self, zone: int, order: int, mt: int) -> int | None:
        for large in range(order, NR_ORDERS):
            if self.lists[zone][mt][large]:
                return self.take_part(self.lists[zone][mt][large][0], order)
        return None

    def claim(self, zone: int, order: int, mt: int, least: int = 0) -> int | None:
        """Turn a whole block of another type into ours, from the largest chunk downwards to `least`."""
        for large in range(MAX_PAGE_ORDER, max(order, least) - 1, -1):
            if large < BLOCK_ORDER // 2 and mt == MOVABLE:
                return None
            other = self.first_fallback(zone, large, mt)
            if other is None:
                continue
            pfn = self.lists[zone][other][large][0]
            if large >= BLOCK_ORDER:
                self.take(pfn)
                for block in range(pfn // BLOCK_PAGES, (pfn + (1 << large)) // BLOCK_PAGES):
                    self.blocktype[block] = mt
                self.put(pfn, large, tail=False)
                return self.take_part(pfn, order)
            if self.claim_block(pfn // BLOCK_PAGES, mt):
                return self.smallest(zone, order, mt)
        return None

    def claim_block(self, block: int, mt: int) -> bool:
        """Move the free chunks of a block to the lists of `mt` if half of the block is free or alike."""
        frames = range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)
        heads = [pfn for pfn in frames if pfn in self.chunks]
        free = sum(1 << self.chunks[pfn] for pfn in heads)
        movable = self.count_movable(block)
        if mt == MOVABLE:
            alike = movable
        elif self.blocktype[block] == MOVABLE:
            alike = BLOCK_PAGES - free - movable
        else:
            alike = 0
        if free + alike < BLOCK_PAGES // 2:
            return False
        orders = [self.take(pfn) for pfn in heads]
        self.blocktype[block] = mt
        for pfn, order in zip(heads, orders, strict=True):
            self.put(pfn, order, tail=True)
        return True

    def steal(self, zone: int, order: int, mt: int) -> int | None:
        for large in range(order, NR_ORDERS):
            other = self.first_fallback(zone, large, mt)
            if other is not None:
                return self.take_part(self.lists[zone][other][large][0], order)
        return None

    def first_fallback(self, zone: int, order: int, mt: int) -> int | None:
        for other in FALLBACKS[mt]:
            if self.lists[zone][other][order]:
                return other
        return None

    def block_is_free(self, block: int) -> bool:
        alone = self.chunks.get(block * BLOCK_PAGES, 0) >= BLOCK_ORDER
        return alone or self.chunks.get((block & ~1) * BLOCK_PAGES) == MAX_PAGE_ORDER

    # -- freeing ------------------------------------------------------------------------------------------------------
    def free_now(self, pfn: int, order: int) -> None:
        """Give back 2^order frames; merge with free buddies of the same zone; the type of the freed block wins."""
        zone = self.zone_of(pfn)
        mt = self.blocktype[pfn // BLOCK_PAGES]
        while order < MAX_PAGE_ORDER:
            buddy = pfn ^ (1 << order)
            if not self.is_buddy(buddy, order, zone):
                break
            self.take(buddy)
            if order >= BLOCK_ORDER:
                self.blocktype[buddy // BLOCK_PAGES] = mt
            pfn = min(pfn, buddy)
            order += 1
        likely = False
        if order < MAX_PAGE_ORDER - 1:
            combined = pfn & ~(1 << order)
            likely = self.is_buddy(combined ^ (2 << order), order + 1, zone)
        self.put(pfn, order, tail=likely)

    # -- invariants ---------------------------------------------------------------------------------------------------
    def check(self) -> set[int]:
        """Assert that lists, chunks and block types agree; the set of all free frames."""
        frames: set[int] = set()
        listed = 0
        for zone, by_type in enumerate(self.lists):
            for mt, by_order in enumerate(by_type):
                for order, pfns in enumerate(by_order):
                    for pfn in pfns:
                        chunk = set(range(pfn, pfn + (1 << order)))
                        assert self.chunks[pfn] == order
                        assert pfn % (1 << order) == 0
                        assert not frames & chunk, f"frame free twice near {pfn}"
                        frames |= chunk
                        for block in {frame // BLOCK_PAGES for frame in (pfn, pfn + (1 << order) - 1)}:
                            assert self.blocktype[block] == mt
                            assert self.zone_of_block(block) == zone
                        if order < MAX_PAGE_ORDER:
                            assert not self.is_buddy(pfn ^ (1 << order), order, zone), f"unmerged buddies at {pfn}"
                    listed += len(pfns)
        assert listed == len(self.chunks)
        return frames
