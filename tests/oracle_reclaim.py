"""The oracle's reclaim: pages of the page cache in one long round, and kswapd that drops them (mm/vmscan.c as of 6.18)."""

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gmemlab.core.layout import BLOCK_ORDER, MOVABLE, UNMOVABLE, ZONE_MOVABLE, ZONE_NORMAL
from oracle_files import File

if TYPE_CHECKING:
    from oracle_memory import Memory

CLUSTER = 32


def highest_zone(mt: int) -> int:
    return ZONE_MOVABLE if mt == MOVABLE else ZONE_NORMAL


@dataclass
class Kswapd:
    """Reclaim of one node. The hand stands before page `index` of `file`, or at the start of the round."""

    file: File | None = None
    index: int = 0
    woken: bool = False
    order: int = 0
    highest: int = 0
    failures: int = 0  # turns since something was dropped


class Reclaim:
    """Files of page cache in the order in which they came, and what each node's kswapd knows."""

    def __init__(self, memory: "Memory") -> None:
        self.memory = memory
        self.files: list[File] = []
        self.kswapds: defaultdict[int, Kswapd] = defaultdict(Kswapd)

    def leave(self, file: File) -> None:
        for hand in self.kswapds.values():
            if hand.file is file:
                self.next_file(hand)
        self.files.remove(file)

    def next_file(self, hand: Kswapd) -> None:
        assert hand.file is not None
        rest = self.files[self.files.index(hand.file) + 1 :]
        hand.file, hand.index = (rest[0] if rest else None), 0

    def shrink(self, node: int, wanted: int, highest: int, who: str) -> int:
        """Drop up to `wanted` pages of a node's zones up to a kind that nobody holds, in one round; how many."""
        buddy, hand = self.memory.buddy, self.kswapds[node]
        dropped = 0
        for _ in range(sum(file.size for file in self.files) if any(file.pages for file in self.files) else 0):
            if dropped == wanted:
                break
            if hand.file is None:
                hand.file = self.files[0]
            page = hand.file.pages.get(hand.index)
            hand.index += 1
            if hand.index == hand.file.size:
                self.next_file(hand)
            if page is not None and buddy.node_of(page.frame) == node:
                self.memory.counters[f"pgscan_{who}"] += 1
                if buddy.zones[buddy.zone_of(page.frame)].kind <= highest and not page.folio.busy():
                    self.memory.leave(page.folio)
                    dropped += 1
        self.memory.counters[f"pgsteal_{who}"] += dropped
        return dropped

    # -- kswapd -------------------------------------------------------------------------------------------------------
    def zones(self, node: int, highest: int) -> list[int]:
        of_zone = self.memory.buddy.nodes.of_zone
        return [n for n, zone in enumerate(self.memory.buddy.zones) if zone.kind <= highest and of_zone[n] == node]

    def has(self, zone: int, order: int, above: int) -> bool:
        """A chunk is free for unmovable memory, and so many pages above the min watermark stay then."""
        buddy = self.memory.buddy
        chunk = order == 0 or buddy.has_chunk(zone, order, UNMOVABLE)
        return buddy.spare(zone, UNMOVABLE) - 2**order >= above and chunk

    def is_balanced(self, node: int, order: int, highest: int) -> bool:
        return any(self.has(zone, order, self.memory.buddy.high[zone]) for zone in self.zones(node, highest))

    def boost(self, node: int, highest: int) -> int:
        return sum(self.memory.buddy.boost[zone] for zone in self.zones(node, highest))

    def wake(self, node: int, order: int, highest: int, waits: bool) -> None:
        asked = self.kswapds[node]
        asked.order, asked.highest = max(asked.order, order), max(asked.highest, highest)
        if not self.is_balanced(node, order, highest) or self.boost(node, highest):
            asked.woken = True
        elif not waits:
            self.memory.wake_kcompactd(node, order, highest)

    def turn(self) -> None:
        """kswapd of each node is told of boosts, and works if it was woken."""
        buddy = self.memory.buddy
        for number, zone in enumerate(buddy.zones):
            if buddy.untold[number]:
                buddy.untold[number] = False
                self.wake(buddy.nodes.of_zone[number], 0, zone.kind, False)
        for node in sorted(self.kswapds):
            if self.kswapds[node].woken:
                self.run(node)

    def run(self, node: int) -> None:
        from oracle_scanners import clear_hints  # which knows of memory

        buddy, asked = self.memory.buddy, self.kswapds[node]
        wanted, order, highest = asked.order, asked.order, asked.highest
        asked.woken, asked.order, asked.highest = False, 0, 0
        buddy.seen["kswapd"] += 1
        boosted = left = self.boost(node, highest)
        buddy.reclaiming = set(self.zones(node, highest))
        total, priority, cached = 0, 12, True
        while priority:
            balanced = self.is_balanced(node, order, highest)
            left = left if balanced else 0
            if balanced and left == 0:
                break
            dropped = self.shrink(node, CLUSTER, highest, "kswapd") if cached else 0
            if asked.failures < 16:
                self.memory.shrinker.shrink(node, priority)
            cached = dropped == CLUSTER
            asked.failures = 0 if dropped else asked.failures
            if dropped == 0 and (left or not self.memory.shrinker.queue(node) or asked.failures >= 16):
                asked.failures += total == 0 and (priority == 1 or left > 0 or not self.is_balanced(node, order, highest))
                break
            priority -= not cached
            asked.failures += priority == 0 and total == 0
            buddy.seen["reclaimed for a boost"] += left > 0
            total += dropped
            left -= min(left, dropped)
            if total >= 2 * 2**order:
                order = 0
        buddy.reclaiming = set()
        if boosted:
            for zone in self.zones(node, highest):
                buddy.boost[zone] = 0
            self.memory.wake_kcompactd(node, BLOCK_ORDER, highest)
        for zone in self.zones(node, ZONE_MOVABLE):
            clear_hints(self.memory, zone)
        self.memory.wake_kcompactd(node, wanted, highest)

    # -- direct reclaim -----------------------------------------------------------------------------------------------
    def direct(self, order: int, mt: int, zones: list[int]) -> bool:
        """Pages of each node, with the shrinker looking at more and more where they are too few. Whether that helped."""
        total = 0
        for priority in range(12, -1, -1):
            ready, dropped = self.shrink_zones(order, highest_zone(mt), zones, priority)
            total += dropped
            if ready:
                return True
            if total >= CLUSTER or not self.memory.shrinker.some():
                break
        return total > 0

    def shrink_zones(self, order: int, highest: int, zones: list[int], priority: int) -> tuple[bool, int]:
        """32 pages of each node; for orders above 3 until compaction has enough, and none where it has. That, and how many."""
        buddy, shrinker = self.memory.buddy, self.memory.shrinker
        shrunk: list[int] = []
        ready, total = False, 0
        for zone in zones:
            node = buddy.nodes.of_zone[zone]
            if order > 3 and (self.has(zone, order, 0) or buddy.suits_compaction(zone, order, buddy.high[zone])):
                buddy.seen["nothing to reclaim"] += 1
                ready = True
            elif node not in shrunk:
                shrunk.append(node)
                dropped = self.shrink(node, CLUSTER, highest, "direct") if priority == 12 else 0
                shrinker.shrink(node, priority)
                total += dropped
                self.kswapds[node].failures *= dropped == 0
                while dropped and order > 3 and not self.suffices(node, order, highest):
                    dropped = self.shrink(node, CLUSTER, highest, "direct")
                    shrinker.shrink(node, priority)
        return ready, total

    def suffices(self, node: int, order: int, highest: int) -> bool:
        """A zone of the node has a chunk, or enough for compaction."""
        zones = self.zones(node, highest)
        return any(self.has(zone, order, 0) or self.memory.buddy.suits_compaction(zone, order) for zone in zones)
