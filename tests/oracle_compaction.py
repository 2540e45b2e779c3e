"""The oracle's compaction: two scanners, a dictionary of isolated chunks, and folios that are given other frames."""

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    HIGHATOMIC,
    KIND_ANON,
    MOVABLE,
    NR_ORDERS,
    RECLAIMABLE,
    UNMOVABLE,
)
from oracle_files import Folio
from oracle_memory import Memory
from oracle_migrate import is_mapped_in_part, move, split
from oracle_page_alloc import LISTS
from oracle_scanners import clear_hints, is_huge, scanners_of, score_of_zone

CLUSTER = 32
WHOLE_ZONE = -1
PROACTIVE = -2
ASYNC, SYNC_LIGHT, SYNC = range(3)
FAR = 1 << 62


class Compaction:
    """One run over one zone: for an order, or of the whole zone, or of it until its score is down to `enough`."""

    def __init__(
        self,
        memory: Memory,
        zone: int,
        order: int,
        mt: int = UNMOVABLE,
        mode: int = SYNC,
        direct: bool = False,
        enough: int = 0,
    ) -> None:
        self.memory, self.buddy = memory, memory.buddy
        self.zone, self.order, self.mt, self.mode, self.direct, self.enough = zone, order, mt, mode, direct, enough
        self.scanners = scanners_of(memory, zone)
        self.isolated: dict[int, list[int]] = {small: [] for small in range(BLOCK_ORDER)}
        self.folios: list[Folio] = []
        self.left = 0  # pages of `folios` that have no target
        self.lowest_found: int | None = 0  # by searches for sources
        self.vain = 0  # searches in a row
        self.first_list = order
        self.finish = False
        limits = self.buddy.zones[zone]
        self.start, self.stop = limits.start * BLOCK_PAGES, limits.end * BLOCK_PAGES
        self.migrate, self.free = self.start, self.stop - BLOCK_PAGES

    def continue_last(self) -> None:
        """The scanners start where the last run left them."""
        known = self.scanners
        if not self.start <= known.free < self.stop:
            known.free = self.stop - BLOCK_PAGES
        if not self.start <= known.migrate[self.mode != ASYNC] < self.stop:
            known.migrate = dict.fromkeys((False, True), self.start)
        self.migrate, self.free = known.migrate[self.mode != ASYNC], known.free

    def apart(self) -> bool:
        return self.free // BLOCK_PAGES > self.migrate // BLOCK_PAGES

    def has_chunk(self) -> bool:
        """One that unmovable memory could have."""
        return self.buddy.has_chunk(self.zone, self.order, UNMOVABLE)

    # -- the run ------------------------------------------------------------------------------------------------------
    def run(self) -> str:
        """`found`: a chunk of the wanted order is free; `met`: the scanners did; `short`: of targets."""
        known = self.scanners
        if self.order >= max(0, known.failed) and known.shift == 6 and known.considered >= 64:
            clear_hints(self.memory, self.zone)
        if self.order >= 0:
            self.continue_last()
        in_step = self.mode == ASYNC and known.migrate[False] == known.migrate[True]
        last = -1  # block in which folios moved
        outcome = self.outcome()
        while not outcome:
            self.finish = last == self.migrate // BLOCK_PAGES
            while True:
                self.find()
                if not self.folios:
                    if in_step:
                        known.migrate[True] = known.migrate[False]
                    break
                in_step = False
                last = (self.migrate - 1) // BLOCK_PAGES
                stayed = self.move()
                if stayed is None and self.apart():
                    outcome = "short"
                    break
                if stayed == 0 or self.migrate % BLOCK_PAGES == 0 or self.order < 0 or self.finish:
                    outcome = "found" if self.captured() else ""
                    break
                self.finish = True
                last = -1 if self.order == BLOCK_ORDER else last
            if not outcome:
                if self.order > 0 and last >= 0 and last * BLOCK_PAGES < self.migrate >> self.order << self.order:
                    if self.buddy.cpus:
                        self.buddy.drain(self.zone, self.buddy.cpu)
                    last = -1
                outcome = self.outcome()
        for order, pfns in self.isolated.items():
            for pfn in pfns:
                self.buddy.free(pfn, order)
                known.free = max(known.free, pfn // BLOCK_PAGES * BLOCK_PAGES)
        return "found" if self.captured() else outcome

    def outcome(self) -> str:
        if not self.apart():
            self.scanners.migrate = dict.fromkeys((False, True), self.start)
            self.scanners.free = self.stop - BLOCK_PAGES
            self.scanners.flush = self.scanners.flush or self.direct
            return "met"
        if self.order == PROACTIVE:
            return "found" if score_of_zone(self.memory, self.zone) <= self.enough else ""
        if self.order < 0 or self.migrate % BLOCK_PAGES:
            return ""
        for large in range(self.order, NR_ORDERS):
            lists = self.buddy.lists[self.zone]
            others = any(lists[mt][large] for mt in (UNMOVABLE, MOVABLE, RECLAIMABLE) if mt != self.mt)
            own = lists[self.mt][large] or (self.mt == MOVABLE and lists[CMA][large])
            if own or (others and (self.mt != MOVABLE or large >= 4)):
                return "found"
        return ""

    def captured(self) -> bool:
        if not self.direct:
            return False
        if self.order >= BLOCK_ORDER or self.mt == MOVABLE:
            return self.has_chunk()
        lists = self.buddy.lists[self.zone]
        return any(lists[mt][order] for mt in (UNMOVABLE, RECLAIMABLE) for order in range(self.order, NR_ORDERS))

    # -- sources ------------------------------------------------------------------------------------------------------
    def may_scan(self, block: int) -> bool:
        return self.order < 0 or block not in self.scanners.skip

    def helps(self, mt: int) -> bool:
        """Whether blocks of a type are sources."""
        wanted = (MOVABLE, CMA) if self.mt == MOVABLE else (self.mt,)
        return not self.direct or self.mode != ASYNC or mt in wanted

    def restart_behind(self, border: int) -> None:
        """`border` is where the block after the scanned one starts: the next run starts at the one after it."""
        for sync in (False, True):
            if self.mode != ASYNC or not sync:
                self.scanners.migrate[sync] = max(self.scanners.migrate[sync], border + BLOCK_PAGES)

    def search_source(self) -> tuple[int, bool]:
        """Where to scan, and whether a search says so."""
        pfn = self.migrate
        if self.finish or pfn % BLOCK_PAGES or self.order <= 3:
            return pfn, False
        if self.direct and self.mt != MOVABLE:
            return pfn, False
        share = 2 if pfn == self.start else 8
        below = (pfn + (self.free - pfn) // share) // BLOCK_PAGES * BLOCK_PAGES
        looked, limit = 0, (CLUSTER >> min(self.vain, 32)) + 1
        for order in range(self.order - 1, 2, -1):
            chunks = self.buddy.lists[self.zone][MOVABLE][order]
            for place, chunk in enumerate(chunks if looked < limit else []):
                looked += 1
                ends = looked > limit
                if not ends and (chunk >= below or chunk // BLOCK_PAGES in self.scanners.skip):
                    continue
                chunks[:] = chunks[place + 1 :] + chunks[: place + 1]
                if ends:
                    break
                if self.lowest_found is not None:
                    self.lowest_found = min(self.lowest_found or chunk, chunk)
                self.vain = 0
                return chunk // BLOCK_PAGES * BLOCK_PAGES, chunk // BLOCK_PAGES * BLOCK_PAGES != pfn
        self.vain += 1
        if self.lowest_found:
            self.migrate, self.lowest_found = self.lowest_found, None
        return self.migrate, False

    def find(self) -> None:
        """Isolate folios of the next block that suits."""
        self.folios, self.left = [], 0
        low, told = self.search_source()
        while (low // BLOCK_PAGES + 1) * BLOCK_PAGES <= self.free:
            block = low // BLOCK_PAGES
            if told or low % BLOCK_PAGES or self.may_scan(block):
                if not is_huge(self.memory, block) and self.helps(self.buddy.blocktype[block]):
                    self.isolate_folios(low)
                    return
                self.restart_behind((block + 1) * BLOCK_PAGES)
            told = False
            self.migrate = low = (block + 1) * BLOCK_PAGES

    def isolate_folios(self, low: int) -> None:
        block, end = low // BLOCK_PAGES, (low // BLOCK_PAGES + 1) * BLOCK_PAGES
        marks = low % BLOCK_PAGES == 0
        pfn = low
        if marks and not self.may_scan(block):
            marks, pfn = False, end
        strict = self.direct and self.mode == ASYNC
        place = 1 << self.order if strict else BLOCK_PAGES
        this = low // place
        while pfn < end and (self.left < CLUSTER or self.finish):
            if pfn // place != this:
                if self.folios:
                    break
                this = pfn // place
            folio = self.candidate(pfn)
            size = self.size_at(pfn)
            if folio is not None:
                self.folios.append(folio)
                self.left += size
            elif strict and pfn not in self.buddy.chunks:
                self.folios, self.left = [], 0
                size = max(size, (this + 1) * place - pfn)
            pfn += size
        self.migrate = min(pfn, end)
        if marks and (not self.folios or self.order >= 0):
            self.scanners.skip.add(block)
        if self.migrate == end and (not self.folios or self.finish):
            self.restart_behind(end)

    def candidate(self, pfn: int) -> Folio | None:
        """The folio that starts at a frame, if it is isolated: a file's folio also while it is held."""
        most = BLOCK_ORDER if self.order < 0 else min(self.order, BLOCK_ORDER)
        folio = self.memory.users.get(pfn)
        if folio is None or folio.pfn != pfn or folio.order >= most:
            return None
        if len(folio.members) < 1 << folio.order and not is_mapped_in_part(folio):
            return None
        if not folio.file.policy.movable or (folio.busy() and folio.file.policy.kind == KIND_ANON):
            return None
        return folio

    def size_at(self, pfn: int) -> int:
        """Pages of whatever starts at a frame."""
        if pfn in self.buddy.chunks:
            return 1 << self.buddy.chunks[pfn]
        kept = [LISTS[index][0] for (_, _, index), pfns in self.buddy.kept().items() if pfn in pfns]
        if kept:
            return 1 << kept[0]
        folio = self.memory.users.get(pfn)
        return 1 << folio.order if folio is not None and folio.pfn == pfn else 1

    def move(self) -> int | None:
        """Move what is isolated, the last first; how many folios stayed, None if targets ended."""
        stayed = 0
        while self.folios:
            folio = self.folios.pop()
            if folio.busy():
                stayed += 1
                self.left -= 1 << folio.order
                self.memory.counters["compact_failed"] += 1 << folio.order
                continue
            target = None if is_mapped_in_part(folio) else self.target(folio.order)
            if target is not None:
                self.left -= 1 << folio.order
                old = folio.pfn
                move(self.memory, folio, target)
                self.buddy.free(old, folio.order)
            elif folio.order == 0:
                self.memory.counters["compact_failed"] += 1
                return None
            else:
                frames = list(folio.frames())
                split(self.memory, folio)
                self.folios += [self.memory.users[pfn] for pfn in frames if pfn in self.memory.users]  # zeros are free
        return stayed

    def target(self, order: int) -> int | None:
        if (target := self.take(order)) is None:
            self.isolate()
            target = self.take(order)
        return target

    # -- targets ------------------------------------------------------------------------------------------------------
    def spare(self) -> int:
        return sum(len(pfns) << order for order, pfns in self.isolated.items())

    def suits(self, block: int) -> bool:
        """Movable or CMA, and not a large free chunk from its start on."""
        most = self.order if self.order > 0 else BLOCK_ORDER
        return self.buddy.blocktype[block] in (MOVABLE, CMA) and self.buddy.chunks.get(block * BLOCK_PAGES, -1) < most

    def isolate_chunk(self, pfn: int) -> int:
        """Its pages; 0 where the zone's reserve does not allow it."""
        size = 1 << self.buddy.chunks[pfn]
        kept = self.buddy.free_of(self.zone, HIGHATOMIC)
        if self.buddy.zone_free(self.zone) - kept - 2 * size < self.buddy.zones[self.zone].reserve:
            return 0
        self.isolated[self.buddy.take(pfn)].append(pfn)
        return size

    def isolate_in(self, pfn: int, stride: int) -> int:
        """Chunks of a block from a frame on, until there are enough; where that ends."""
        end = (pfn // BLOCK_PAGES + 1) * BLOCK_PAGES
        if not any(frame in self.buddy.chunks for frame in range(end - BLOCK_PAGES, end)):
            return end
        while pfn < end:
            if pfn in self.buddy.chunks and self.buddy.chunks[pfn] < BLOCK_ORDER:
                size = self.isolate_chunk(pfn)
                if not size:
                    return pfn
                if self.spare() >= self.left:
                    return pfn + size
                pfn += size - 1
            elif pfn in self.memory.users:
                pfn += self.size_at(pfn) - 1
            pfn += stride
        return end

    def search_target(self) -> None:
        """A chunk far up on the free lists, from their ends; and around it."""
        limit, at_start = max(1, ((CLUSTER >> min(self.vain, 32)) + 1) // 2), self.free >= self.scanners.init_free
        if at_start:
            limit = BLOCK_PAGES // 2
        apart = self.free - self.migrate
        low, least = (self.free - apart // share for share in (4, 2)) if apart >= 0 else (FAR, FAR)
        low, least = (pfn // BLOCK_PAGES * BLOCK_PAGES for pfn in (low, least))
        order = self.first_list = min(self.order - 1, self.first_list)
        seen: list[int] = []
        place: int | None = None
        while True:
            chunks = self.buddy.lists[self.zone][MOVABLE][order]
            if any(lists[order] for lists in self.buddy.lists[self.zone]):
                looked = best = 0
                for chunk in reversed(chunks):
                    looked += 1
                    seen.append(chunk // BLOCK_PAGES * BLOCK_PAGES)
                    if chunk >= low:
                        self.vain, self.first_list, place = 0, order, chunk
                        break
                    if chunk >= least and chunk > best:
                        best, limit = chunk, limit // 2
                    if looked >= limit:
                        break
                place = (best or None) if place is None else place
                if looked and (place is not None or looked >= limit):
                    first = len(chunks) - looked if place is None else chunks.index(place)
                    chunks[:] = chunks[first:] + chunks[:first]
                if place is not None and not self.isolate_chunk(place):
                    order, place = self.first_list + 1, None
                if self.spare() >= self.left:
                    break
                if looked >= limit:
                    limit = max(1, limit // 2)
            order = (order or self.order) - 1
            if order == self.first_list:
                self.first_list = (self.first_list or self.order) - 1
                break
            if place is not None:
                break
        if place is None:
            self.vain += 1
            if at_start and seen and max(seen) >= least:
                place = self.free = max(seen)
            elif at_start and self.direct and least != FAR:
                self.free = least
                place = least if self.suits(least // BLOCK_PAGES) else None
        if seen and max(seen) >= self.scanners.free:
            self.scanners.free = max(seen) - BLOCK_PAGES
        if place is not None and self.spare() < self.left and not (self.direct and self.mode == ASYNC):
            block = place // BLOCK_PAGES
            if self.isolate_in(block * BLOCK_PAGES, 1) == (block + 1) * BLOCK_PAGES:
                self.scanners.skip.add(block)

    def isolate(self) -> None:
        """Free chunks by a search; else of suitable blocks, from the scanner's block downwards, until there are enough."""
        if self.order > 0:
            self.search_target()
        if self.spare():
            return
        stride = CLUSTER if self.mode == ASYNC else 1
        for block in range(self.free // BLOCK_PAGES, self.migrate // BLOCK_PAGES, -1):
            if self.suits(block) and self.may_scan(block):
                had = self.spare()
                self.free = self.isolate_in(self.free, stride)
                at_end = self.free == (block + 1) * BLOCK_PAGES
                if at_end:
                    self.scanners.skip.add(block)
                    self.scanners.free = min(self.scanners.free, (block - 1) * BLOCK_PAGES)
                if not at_end:
                    return
                if self.spare() >= self.left:
                    self.free = (block - 1) * BLOCK_PAGES
                    return
                stride = 1 if self.spare() > had else min(CLUSTER, 2 * stride)
            self.free = (block - 1) * BLOCK_PAGES

    def take(self, order: int) -> int | None:
        for large in range(order, BLOCK_ORDER):
            if self.isolated[large]:
                pfn = self.isolated[large].pop(0)
                for half in range(large - 1, order - 1, -1):
                    self.isolated[half].insert(0, pfn + (1 << half))
                return pfn
        return None
