"""The oracle's page allocator: free lists that are Python lists of page frame numbers, and nothing else.

Rules: K18, K19 (mm/page_alloc.c as of 6.18). Index 0 of a list is its head. Frame number = block * 512 + offset.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import lshift

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    ISOLATE,
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
    """Free lists per zone, migratetype and order. `on_lru` says whether a frame's page is on the LRU lists."""

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        on_lru: Callable[[int], bool],
        types: dict[int, int] | None = None,
    ) -> None:
        self.zones = [Zone(*zone) for zone in zones]
        self.minimum = [0] * len(zones)  # the min watermarks, and how far above them (and what is protected) the others lie
        self.low = [0] * len(zones)
        self.high = [0] * len(zones)
        self.boost = [0] * len(zones)
        self.untold = [False] * len(zones)  # whether kswapd has not been told of the boost
        self.boost_factor = 15000
        self.origins: dict[int, int] = {}  # what isolated blocks were
        self.seen: Counter[str] = Counter()  # how often what tests must meet happened
        self.nr_blocks = nr_blocks
        self.on_lru = on_lru
        self.lists: list[list[list[list[int]]]] = [
            [[[] for _ in range(NR_ORDERS)] for _ in range(NR_MIGRATETYPES)] for _ in zones
        ]
        self.chunks: dict[int, int] = {}  # head of every free chunk -> its order
        self.blocktype = [MOVABLE if self.zone_of_block(block) is not None else 0 for block in range(nr_blocks + 1)]
        for block, mt in (types or {}).items():
            self.blocktype[block] = mt
            if mt == ISOLATE:
                self.origins[block] = MOVABLE
        free = {b for b in range(1, nr_blocks + 1) if b not in reserved_blocks and self.zone_of_block(b) is not None}
        for block in sorted(free):
            if block % 2 == 1 and self.is_pair(block - 1, free):
                continue
            self.put(block * BLOCK_PAGES, 10 if block % 2 == 0 and self.is_pair(block, free) else 9, tail=True)

    def is_pair(self, even: int, free: set[int]) -> bool:
        alike = even < self.nr_blocks and self.blocktype[even] == self.blocktype[even + 1]
        return {even, even + 1} <= free and self.zone_of_block(even) == self.zone_of_block(even + 1) and alike

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
        """Free pages of one zone, counted anew, but for those that are isolated."""
        return sum(self.free_of(zone, mt) for mt in range(NR_MIGRATETYPES) if mt != ISOLATE)

    def free_of(self, zone: int, mt: int) -> int:
        return sum(map(lshift, map(len, self.lists[zone][mt]), range(NR_ORDERS)))

    def spare(self, zone: int, mt: int) -> int:
        """What an ordinary allocation may have above the zone's reserve, as its boost raises it."""
        types = {*FALLBACKS, *([CMA] if mt == MOVABLE else [])}
        return sum(self.free_of(zone, other) for other in types) - self.zones[zone].reserve - self.boost[zone]

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

    def own(self, zone: int, order: int, mt: int) -> int | None:
        """Of the lists of the type; movable memory from CMA where they have none, or before, where that is more than half."""
        types = [mt]
        if mt == MOVABLE:
            types = [CMA, mt] if self.free_of(zone, CMA) > self.zone_free(zone) // 2 else [mt, CMA]
        for other in types:
            pfn = self.smallest(zone, order, other)
            if pfn is not None:
                self.seen["CMA first" if types[0] == CMA else "CMA last"] += other == CMA
                return pfn
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
            self.raise_boost(zone)
            if self.claim_block(pfn // BLOCK_PAGES, mt):
                return self.smallest(zone, order, mt)
        return None

    def claim_block(self, block: int, mt: int) -> bool:
        """Move the free chunks of a block to the lists of `mt` if half of the block is free or alike."""
        frames = range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)
        heads = [pfn for pfn in frames if pfn in self.chunks]
        free = sum(1 << self.chunks[pfn] for pfn in heads)
        movable = sum(map(self.on_lru, frames))
        if mt == MOVABLE:
            alike = movable
        elif self.blocktype[block] == MOVABLE:
            alike = BLOCK_PAGES - free - movable
        else:
            alike = 0
        if free + alike < BLOCK_PAGES // 2:
            return False
        self.retype(block, mt)
        return True

    def raise_boost(self, zone: int) -> None:
        """By a block, up to half more than the high watermark, or a block; not in zones of less than four."""
        most = (self.minimum[zone] + self.high[zone]) * self.boost_factor // 10_000
        if most and self.zones[zone].end - self.zones[zone].start >= 4:
            self.boost[zone] = min(self.boost[zone] + BLOCK_PAGES, max(BLOCK_PAGES, most))
            self.untold[zone] = True
            self.seen["boost"] += 1

    def retype(self, block: int, mt: int) -> None:
        """Another type for a block that is in no free chunk of order 10; what is free in it goes to the tails."""
        frames = range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)
        heads = [pfn for pfn in frames if pfn in self.chunks]
        orders = [self.take(pfn) for pfn in heads]
        self.blocktype[block] = mt
        for pfn, order in zip(heads, orders, strict=True):
            self.put(pfn, order, tail=True)

    # -- isolation ----------------------------------------------------------------------------------------------------
    def isolate(self, block: int) -> None:
        self.origins[block] = self.blocktype[block]
        self.change(block, ISOLATE)

    def change(self, block: int, mt: int) -> None:
        pair = (block & ~1) * BLOCK_PAGES
        if self.chunks.get(pair) == MAX_PAGE_ORDER:
            self.take(pair)
            self.blocktype[block] = mt
            for half in (pair, pair + BLOCK_PAGES):
                self.free_now(half, BLOCK_ORDER)
        else:
            self.retype(block, mt)

    def release(self, block: int) -> None:
        """No longer isolated. Where the neighbour is free, and is not, the block is freed anew."""
        mt = self.origins.pop(block)
        pfn, neighbour = block * BLOCK_PAGES, block ^ 1
        zone = self.zone_of(pfn)
        free = self.chunks.get(pfn) == BLOCK_ORDER and self.is_buddy(neighbour * BLOCK_PAGES, BLOCK_ORDER, zone)
        if free and self.blocktype[neighbour] != ISOLATE:
            self.take(pfn)
            self.blocktype[block] = mt
            self.free_now(pfn, BLOCK_ORDER, tail=True)
        else:
            self.change(block, mt)

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
    def may_merge(self, block: int, other: int) -> bool:
        mine, others = self.blocktype[block], self.blocktype[other]
        return mine == others or (mine in FALLBACKS and others in FALLBACKS)

    def free_now(self, pfn: int, order: int, tail: bool = False) -> None:
        """Give back 2^order frames; merge with free buddies of the same zone; the type of the freed block wins.

        Blocks of types that do not help each other out do not merge.
        """
        zone = self.zone_of(pfn)
        mt = self.blocktype[pfn // BLOCK_PAGES]
        self.seen["freed there"] += mt == ISOLATE
        while order < MAX_PAGE_ORDER:
            buddy = pfn ^ (1 << order)
            if not self.is_buddy(buddy, order, zone) or not self.may_merge(pfn // BLOCK_PAGES, buddy // BLOCK_PAGES):
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
        self.put(pfn, order, tail=tail or likely)

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
                        buddy = pfn ^ (1 << order)
                        if order < MAX_PAGE_ORDER and self.is_buddy(buddy, order, zone):
                            isolated = ISOLATE in (self.blocktype[pfn // BLOCK_PAGES], self.blocktype[buddy // BLOCK_PAGES])
                            merge = self.may_merge(pfn // BLOCK_PAGES, buddy // BLOCK_PAGES)
                            assert isolated or not merge, f"unmerged buddies at {pfn}"
                    listed += len(pfns)
        assert listed == len(self.chunks)
        return frames
