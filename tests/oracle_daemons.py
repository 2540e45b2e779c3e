"""The oracle's khugepaged and kcompactd: lists of files, counters of milliseconds, and nothing clever."""

from dataclasses import dataclass, field
from typing import Final

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    KIND_ANON,
    MOVABLE,
    REPAIR_COLLAPSE,
    UNMOVABLE,
    ZONE_MOVABLE,
    ZONE_NORMAL,
)
from oracle_compaction import PROACTIVE, SYNC_LIGHT, Compaction
from oracle_effort import alloc_with
from oracle_files import File
from oracle_memory import Memory
from oracle_repair import exchange, is_whole, most_on
from oracle_scanners import scanners_of, score_of_zone

INTERVAL: Final = 500  # ms


@dataclass
class Khugepaged:
    """`files` in the order in which they came; the cursor stands in `file`, or before the first."""

    pages_to_scan: int = 4096
    scan_sleep: int = 10_000
    alloc_sleep: int = 60_000
    max_ptes_none: int = 511
    files: list[File] = field(default_factory=list)
    file: File | None = None
    page: int = 0
    progress: int = 0
    passed: int = 0
    waited: bool = False
    result: str = ""
    sleep: int = 0

    def enter(self, file: File) -> None:
        if not self.files:
            self.progress, self.passed, self.waited, self.sleep = 0, 0, False, self.scan_sleep
        self.files.append(file)

    def leave(self, file: File) -> None:
        if self.file is file:
            self.next_file()
        self.files.remove(file)

    def next_file(self) -> None:
        assert self.file is not None
        rest = self.files[self.files.index(self.file) + 1 :]
        self.file, self.page = (rest[0] if rest else None), 0

    def tick(self, memory: Memory, milliseconds: int) -> int:
        """Time passes; pages collapsed."""
        collapsed = 0
        while self.files and milliseconds >= self.sleep:
            milliseconds -= self.sleep
            collapsed += self.scan(memory)
        if self.files:
            self.sleep -= milliseconds
        return collapsed

    def scan(self, memory: Memory) -> int:
        collapsed = 0
        while self.progress < self.pages_to_scan:
            if self.file is None:
                self.passed += 1
            if self.passed == 2:
                break
            collapsed += self.scan_file(memory)
            if self.progress < self.pages_to_scan and self.result == "memory":
                if self.waited:
                    break
                self.waited = True
                self.sleep = self.alloc_sleep
                return collapsed
        self.progress, self.passed, self.waited, self.sleep = 0, 0, False, self.scan_sleep
        return collapsed

    def scan_file(self, memory: Memory) -> int:
        self.progress += 1
        self.result = ""
        if self.file is None:
            self.file, self.page = self.files[0], 0
        file, collapsed = self.file, 0
        while self.page + BLOCK_PAGES <= file.size:
            self.result = self.scan_block(memory, file, self.page)
            memory.counters[f"scan_{self.result}"] += 1
            self.page += BLOCK_PAGES
            self.progress += BLOCK_PAGES
            collapsed += BLOCK_PAGES if self.result == "collapsed" else 0
            if self.result in ("collapsed", "memory") or file.policy.kind != KIND_ANON or self.progress >= self.pages_to_scan:
                return collapsed
        self.next_file()
        return collapsed

    def scan_block(self, memory: Memory, file: File, base: int) -> str:
        indexes = range(base, base + BLOCK_PAGES)
        if not any(index in file.pages for index in indexes):
            return "absent"
        if is_whole(file, base):
            return "huge"
        if file.in_place() and file.shared & set(indexes):
            return "shared"
        reason = self.obstacle(file, base)
        if not reason:
            mt = MOVABLE if file.policy.movable else UNMOVABLE
            pfn = alloc_with(memory, BLOCK_ORDER, mt, frozenset({"direct"}), *most_on(memory, file, base))
            reason = "memory" if pfn is None else self.obstacle(file, base)
            if pfn is not None and reason:
                memory.buddy.free(pfn, BLOCK_ORDER)
            elif pfn is not None:
                exchange(memory, file, base, pfn)
        return reason or "collapsed"

    def obstacle(self, file: File, base: int) -> str:
        """A held page, or too many holes; of anonymous memory whichever comes first."""
        holes = 0
        for index in range(base, base + BLOCK_PAGES):
            if index in file.pages:
                if file.pages[index].folio.busy():
                    return "held"
            else:
                holes += 1
                if holes > self.max_ptes_none and file.policy.kind == KIND_ANON:
                    return "holes"
        return "holes" if holes > self.max_ptes_none else ""


@dataclass
class Kcompactd:
    """That of one node; what failed allocations want of it."""

    node: int
    proactiveness: int = 20
    order: int = 0
    highest: int = ZONE_MOVABLE
    sleep: int = INTERVAL

    def wake(self, order: int, highest: int) -> None:
        """A chunk of this order is wanted, in a zone up to a kind."""
        self.order = max(self.order, order)
        if highest < ZONE_MOVABLE:
            self.highest = ZONE_NORMAL

    def zones(self, memory: Memory) -> list[int]:
        return [zone for zone, node in enumerate(memory.buddy.nodes.of_zone) if node == self.node]

    def tick(self, memory: Memory, milliseconds: int) -> None:
        """Time passes, step by step."""
        if self.order:
            self.work(memory)
            self.sleep = INTERVAL
        while milliseconds >= self.sleep:
            milliseconds -= self.sleep
            self.sleep = INTERVAL
            if self.proactiveness and self.score(memory) > min(100, self.wmark_low() + min(10, self.wmark_low() // 2)):
                score = self.score(memory)
                for zone in reversed(self.zones(memory)):
                    memory.counters["kcompactd"] += 1
                    Compaction(memory, zone, PROACTIVE, mode=SYNC_LIGHT, enough=self.wmark_low()).run()
                if self.score(memory) >= score:
                    self.sleep = 64 * INTERVAL
        self.sleep -= milliseconds

    def wmark_low(self) -> int:
        return 100 - self.proactiveness

    def score(self, memory: Memory) -> int:
        zones = {zone: memory.buddy.zones[zone] for zone in self.zones(memory)}
        sizes = {number: (zone.end - zone.start) * BLOCK_PAGES for number, zone in zones.items()}
        return sum(size * score_of_zone(memory, zone) // (sum(sizes.values()) + 1) for zone, size in sizes.items())

    def work(self, memory: Memory) -> None:
        for number in reversed(self.zones(memory)):
            zone = memory.buddy.zones[number]
            scanners = scanners_of(memory, number)
            if zone.kind > self.highest or scanners.passes_over(self.order):
                continue
            run = Compaction(memory, number, self.order, UNMOVABLE, SYNC_LIGHT)
            if run.has_chunk() or not memory.buddy.suits_compaction(number, self.order):
                continue
            memory.counters["kcompactd"] += 1
            outcome = run.run()
            if outcome == "found":
                scanners.failed = max(scanners.failed, self.order + 1)
            elif outcome == "met":
                memory.buddy.drain_zone(number)
                scanners.note_failure(self.order)
        self.order, self.highest = 0, ZONE_MOVABLE


@dataclass
class Daemons:
    """Both."""

    khugepaged: Khugepaged = field(default_factory=Khugepaged)
    kcompactds: list[Kcompactd] = field(default_factory=lambda: [Kcompactd(0)])

    def wake(self, node: int, order: int, highest: int) -> None:
        """A chunk of this order is wanted on a node, in a zone up to a kind."""
        if order:
            self.kcompactds[node].wake(order, highest)

    def kcompactd(self, memory: Memory, milliseconds: int, proactiveness: int) -> int:
        """Time passes for kcompactd of every node; pages moved."""
        before = memory.counters["moved"]
        for daemon in self.kcompactds:
            daemon.proactiveness = proactiveness
            daemon.tick(memory, milliseconds)
        return memory.counters["moved"] - before

    def enter(self, file: File) -> None:
        if file.policy.repair & REPAIR_COLLAPSE:
            self.khugepaged.enter(file)

    def leave(self, file: File) -> None:
        if file.policy.repair & REPAIR_COLLAPSE:
            self.khugepaged.leave(file)
