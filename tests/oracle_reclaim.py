"""The oracle's reclaim: pages of the page cache in one long round, and kswapd that drops them (mm/vmscan.c as of 6.18)."""

from typing import TYPE_CHECKING

from gmemlab.core.layout import BLOCK_ORDER, MOVABLE, UNMOVABLE, ZONE_MOVABLE, ZONE_NORMAL
from oracle_files import File

if TYPE_CHECKING:
    from oracle_memory import Memory

CLUSTER = 32


def highest_zone(mt: int) -> int:
    return ZONE_MOVABLE if mt == MOVABLE else ZONE_NORMAL


class Reclaim:
    """Files of page cache in the order in which they came; the hand stands before page `index` of `file`, or at the start."""

    def __init__(self, memory: "Memory") -> None:
        self.memory = memory
        self.files: list[File] = []
        self.file: File | None = None
        self.index = 0
        self.woken = False
        self.order = 0
        self.highest = 0

    def leave(self, file: File) -> None:
        if self.file is file:
            self.next_file()
        self.files.remove(file)

    def next_file(self) -> None:
        assert self.file is not None
        rest = self.files[self.files.index(self.file) + 1 :]
        self.file, self.index = (rest[0] if rest else None), 0

    def shrink(self, wanted: int, highest: int, who: str) -> int:
        """Drop up to `wanted` pages of zones up to a kind that nobody holds, in one round; how many."""
        dropped = 0
        for _ in range(sum(file.size for file in self.files) if any(file.pages for file in self.files) else 0):
            if dropped == wanted:
                break
            if self.file is None:
                self.file = self.files[0]
            page = self.file.pages.get(self.index)
            self.index += 1
            if self.index == self.file.size:
                self.next_file()
            if page is not None:
                self.memory.counters[f"pgscan_{who}"] += 1
                zone = self.memory.buddy.zones[self.memory.buddy.zone_of(page.frame)]
                if zone.kind <= highest and not page.folio.busy():
                    self.memory.leave(page.folio)
                    dropped += 1
        self.memory.counters[f"pgsteal_{who}"] += dropped
        return dropped

    # -- kswapd -------------------------------------------------------------------------------------------------------
    def zones(self, highest: int) -> list[int]:
        return [number for number, zone in enumerate(self.memory.buddy.zones) if zone.kind <= highest]

    def has(self, zone: int, order: int, above: int) -> bool:
        """A chunk is free for unmovable memory, and so many pages above the min watermark stay then."""
        buddy = self.memory.buddy
        chunk = order == 0 or buddy.has_chunk(zone, order, UNMOVABLE)
        return buddy.spare(zone, UNMOVABLE) - 2**order >= above and chunk

    def is_balanced(self, order: int, highest: int) -> bool:
        return any(self.has(zone, order, self.memory.buddy.high[zone]) for zone in self.zones(highest))

    def boost(self, highest: int) -> int:
        return sum(self.memory.buddy.boost[zone] for zone in self.zones(highest))

    def wake(self, order: int, highest: int, waits: bool) -> None:
        self.order, self.highest = max(self.order, order), max(self.highest, highest)
        if not self.is_balanced(order, highest) or self.boost(highest):
            self.woken = True
        elif not waits:
            self.memory.wake_kcompactd(order, highest)

    def turn(self) -> None:
        """kswapd is told of boosts, and works if it was woken."""
        buddy = self.memory.buddy
        for number, zone in enumerate(buddy.zones):
            if buddy.untold[number]:
                buddy.untold[number] = False
                self.wake(0, zone.kind, False)
        if self.woken:
            self.run()

    def run(self) -> None:
        buddy = self.memory.buddy
        wanted, order, highest = self.order, self.order, self.highest
        self.woken, self.order, self.highest = False, 0, 0
        buddy.seen["kswapd"] += 1
        boosted = left = self.boost(highest)
        buddy.reclaiming = set(self.zones(highest))
        total = 0
        while True:
            balanced = self.is_balanced(order, highest)
            left = left if balanced else 0
            if balanced and left == 0:
                break
            dropped = self.shrink(CLUSTER, highest, "kswapd")
            if dropped == 0:
                break
            buddy.seen["reclaimed for a boost"] += left > 0
            total += dropped
            left -= min(left, dropped)
            if total >= 2 * 2**order:
                order = 0
        buddy.reclaiming = set()
        if boosted:
            for zone in self.zones(highest):
                buddy.boost[zone] = 0
            self.memory.wake_kcompactd(BLOCK_ORDER, highest)
        self.memory.wake_kcompactd(wanted, highest)

    # -- direct reclaim -----------------------------------------------------------------------------------------------
    def direct(self, order: int, mt: int) -> bool:
        """32 pages; for orders above 3 until compaction has enough, and none where it has. Whether that helped."""
        buddy, highest = self.memory.buddy, highest_zone(mt)
        zones = self.zones(highest)
        if order > 3 and all(
            self.has(zone, order, 0) or buddy.suits_compaction(zone, order, buddy.high[zone]) for zone in zones
        ):
            buddy.seen["nothing to reclaim"] += 1
            return True
        dropped = total = self.shrink(CLUSTER, highest, "direct")
        while dropped and order > 3:
            if any(self.has(zone, order, 0) or buddy.suits_compaction(zone, order) for zone in zones):
                break
            dropped = self.shrink(CLUSTER, highest, "direct")
        return total > 0
