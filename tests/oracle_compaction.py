"""The oracle's compaction: two scanners, a dictionary of isolated chunks, and folios that are given other frames."""

from collections import Counter
from dataclasses import dataclass

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    HIGHATOMIC,
    ISOLATE,
    KIND_ANON,
    MOVABLE,
)
from oracle_contig import move, split
from oracle_files import File, Folio
from oracle_memory import Memory
from oracle_page_alloc import LISTS

CLUSTER = 32
WHOLE_ZONE = -1
PROACTIVE = -2


@dataclass
class Scanners:
    """Where a zone's scanners stand (frames), and what is remembered of failures."""

    migrate: int = 0
    free: int = 0
    considered: int = 0
    shift: int = 0
    failed: int = 0

    def passes_over(self, order: int) -> bool:
        """Whether an attempt is not made, as one for this order failed lately; it is counted."""
        if order < self.failed:
            return False
        self.considered = min(self.considered + 1, 1 << self.shift)
        return self.considered < 1 << self.shift

    def note_failure(self, order: int) -> None:
        """Twice as many attempts are passed over, up to 64."""
        self.considered, self.shift, self.failed = 0, min(self.shift + 1, 6), min(self.failed, order)


def score_of_zone(memory: Memory, zone: int) -> int:
    """Percent of its free pages that lie outside chunks of 2 MiB and more."""
    small = sum(
        len(pfns) << order for by_order in memory.buddy.lists[zone] for order, pfns in enumerate(by_order[:BLOCK_ORDER])
    )
    free = memory.buddy.zone_free(zone) + memory.buddy.free_of(zone, ISOLATE)
    return small * 100 // free if free else 0


class Compaction:
    """One run over one zone: for an order, or of the whole zone, or of it until its score is down to `enough`."""

    def __init__(self, memory: Memory, zone: int, order: int, enough: int = 0, mt: int = MOVABLE) -> None:
        self.memory, self.buddy = memory, memory.buddy
        self.zone, self.order, self.enough, self.mt = zone, order, enough, mt
        self.scanners: Scanners = memory.scanners.setdefault(zone, Scanners())
        self.isolated: dict[int, list[int]] = {small: [] for small in range(BLOCK_ORDER)}
        if order < 0 or self.scanners.migrate == 0:
            self.reset()

    def reset(self) -> None:
        zone = self.buddy.zones[self.zone]
        self.scanners.migrate = zone.start * BLOCK_PAGES
        self.scanners.free = (zone.end - 1) * BLOCK_PAGES

    def apart(self) -> bool:
        return self.scanners.free // BLOCK_PAGES > self.scanners.migrate // BLOCK_PAGES

    def has_chunk(self) -> bool:
        return self.buddy.has_chunk(self.zone, self.order, self.mt)

    def run(self) -> str:
        """`found`: a chunk of the wanted order is free; `met`: the scanners did; `short`: of targets."""
        wanted = self.order >= 0
        outcome = ""
        last = 0
        while not outcome:
            moved = self.memory.counters["moved"]
            if not self.apart():
                outcome = "met"
            elif self.is_enough():
                outcome = "found"
            elif not self.move_cluster():
                outcome = "short" if self.apart() else "met"
            else:
                if self.memory.counters["moved"] > moved:
                    last = (self.scanners.migrate - 1) // BLOCK_PAGES * BLOCK_PAGES
                if self.order > 0 and self.buddy.cpus and 0 < last < self.scanners.migrate >> self.order << self.order:
                    self.buddy.drain(self.zone, self.buddy.cpu)
                    last = 0
        for order, pfns in self.isolated.items():
            for pfn in pfns:
                self.buddy.free(pfn, order)
        if outcome == "met":
            self.reset()
        return "found" if wanted and self.has_chunk() else outcome

    def is_enough(self) -> bool:
        if self.order == PROACTIVE:
            return score_of_zone(self.memory, self.zone) <= self.enough
        return self.order >= 0 and self.scanners.migrate % BLOCK_PAGES == 0 and self.has_chunk()

    def candidate(self, pfn: int) -> Folio | None:
        """The folio that starts at a frame, if it can be migrated."""
        most = BLOCK_ORDER if self.order < 0 else min(self.order, BLOCK_ORDER)
        folio = self.memory.users.get(pfn)
        if folio is None or folio.pfn != pfn or folio.order >= most or folio.busy():
            return None
        return folio if folio.file.policy.movable and len(folio.members) == 1 << folio.order else None

    def size_at(self, pfn: int) -> int:
        """Pages of whatever starts at a frame."""
        if pfn in self.buddy.chunks:
            return 1 << self.buddy.chunks[pfn]
        kept = [LISTS[index][0] for (_, _, index), pfns in self.buddy.kept().items() if pfn in pfns]
        if kept:
            return 1 << kept[0]
        folio = self.memory.users.get(pfn)
        return 1 << folio.order if folio is not None and folio.pfn == pfn else 1

    def move_cluster(self) -> bool:
        start = end = self.scanners.migrate
        stop = (start // BLOCK_PAGES + 1) * BLOCK_PAGES
        left = 0
        while end < stop and left < CLUSTER:
            folio = self.candidate(end)
            left += 0 if folio is None else 1 << folio.order
            end += self.size_at(end)
        self.scanners.migrate = min(stop, end)
        places = list(range(start, min(end, stop)))
        while places and left:
            folio = self.candidate(places.pop())
            if folio is None:
                continue
            target = self.take(folio.order)
            if target is None:
                self.isolate(left)
                target = self.take(folio.order)
            if target is not None:
                left -= 1 << folio.order
                old = folio.pfn
                move(self.memory, folio, target)
                self.buddy.free(old, folio.order)
            elif folio.order == 0:
                return False
            else:
                places += folio.frames()
                split(self.memory, folio)
        return True

    def isolate(self, wanted: int) -> None:
        """Free chunks of suitable blocks, from the scanner's block downwards, until there are enough pages."""
        reserve = self.buddy.zones[self.zone].reserve
        while wanted > 0 and self.apart():
            block, pfn = self.scanners.free // BLOCK_PAGES, self.scanners.free
            stop = (block + 1) * BLOCK_PAGES
            small = [p for p in range(block * BLOCK_PAGES, stop) if self.buddy.chunks.get(p, BLOCK_ORDER) < BLOCK_ORDER]
            if small and self.buddy.blocktype[block] in (MOVABLE, CMA):
                while wanted > 0 and pfn < stop:
                    size = self.size_at(pfn)
                    if pfn in self.buddy.chunks:
                        kept = self.buddy.free_of(self.zone, HIGHATOMIC)
                        if self.buddy.zone_free(self.zone) - kept - 2 * size < reserve:
                            self.scanners.free = pfn
                            return
                        self.isolated[self.buddy.take(pfn)].append(pfn)
                        wanted -= size
                    pfn += size
                if pfn < stop:
                    self.scanners.free = pfn
                    return
            self.scanners.free = (block - 1) * BLOCK_PAGES

    def take(self, order: int) -> int | None:
        for large in range(order, BLOCK_ORDER):
            if self.isolated[large]:
                pfn = self.isolated[large].pop(0)
                for half in range(large - 1, order - 1, -1):
                    self.isolated[half].insert(0, pfn + (1 << half))
                return pfn
        return None


def compact(memory: Memory) -> int:
    """All zones, as far as the scanners get; how many pages moved."""
    before = memory.counters["moved"]
    for zone in range(len(memory.buddy.zones)):
        Compaction(memory, zone, WHOLE_ZONE).run()
    return memory.counters["moved"] - before


def compact_for(memory: Memory, order: int, mt: int, node: int, allowed: set[int] | None, notes: bool = True) -> bool:
    """Direct compaction, zone by zone; failures are remembered, unless reclaim comes next."""
    for number in memory.buddy.asked(mt, node, allowed):
        if not memory.buddy.suits_compaction(number, order):
            continue
        scanners = memory.scanners.setdefault(number, Scanners())
        if scanners.passes_over(order):
            continue
        memory.counters["compactions"] += 1
        outcome = Compaction(memory, number, order, mt=mt).run()
        if outcome == "met" and notes:
            scanners.note_failure(order)
        if outcome == "found":
            scanners.considered = scanners.shift = 0
            scanners.failed = max(scanners.failed, order + 1)
            return True
    return False


def most_on(memory: Memory, file: File, base: int) -> tuple[int, set[int]]:
    """The first node that has the most of a 2 MiB of a file, and all that have as much: folios, or anonymous pages."""
    pages = [file.pages[index] for index in range(base, base + BLOCK_PAGES) if index in file.pages]
    if file.policy.kind != KIND_ANON:
        pages = list({page.folio: page for page in pages}.values())
    counts = Counter(memory.buddy.node_of(page.frame) for page in pages)
    most = max(counts.values(), default=0)
    alike = {node for node in memory.all_nodes() if counts[node] == most}
    return min(alike), alike
