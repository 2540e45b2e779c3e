"""The oracle's way to and from the free lists: watermarks, zones in order, and lists of CPUs (mm/page_alloc.c as of 6.18)."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CMA,
    HIGHATOMIC,
    ISOLATE,
    MOVABLE,
    NR_ORDERS,
    ZONE_DMA32,
    ZONE_NORMAL,
)
from oracle_buddy import FALLBACKS, Buddy
from oracle_nodes import Nodes

# A CPU's lists: (order, type). Those of order 9 know only whether memory is movable.
LISTS = [(order, mt) for order in range(4) for mt in range(3)] + [(BLOCK_ORDER, 0), (BLOCK_ORDER, MOVABLE)]
LARGEST_SHIFT = 5


@dataclass
class Cpu:
    """What one CPU keeps of one zone; index 0 of a list is its head."""

    batch: int
    high_min: int
    high_max: int
    high: int = 0
    free_count: int = 0
    alloc_factor: int = 0
    freed_high: bool = False
    touched: bool = False  # since the last second, by chunks of less than 2 MiB
    expire: int = 0
    lists: list[list[int]] = field(default_factory=lambda: [[] for _ in LISTS])

    def count(self) -> int:
        return sum(len(pfns) << order for (order, _), pfns in zip(LISTS, self.lists, strict=True))

    def clamp(self) -> int:
        self.high = min(max(self.high, self.high_min), self.high_max)
        return self.high


class PageAllocator(Buddy):
    """A buddy allocator with watermarks above the reserves and, where `cpus` are given, a list of CPUs for each zone."""

    def __init__(
        self,
        zones: list[tuple[int, int, int, int]],
        reserved_blocks: set[int],
        nr_blocks: int,
        on_lru: Callable[[int], bool],
        types: dict[int, int] | None = None,
    ) -> None:
        super().__init__(zones, reserved_blocks, nr_blocks, on_lru, types)
        self.below_high = [False] * len(zones)
        self.reclaiming: set[int] = set()  # zones that kswapd works on
        self.nofragment = False
        self.in_batches = False  # since 6.19
        self.cpus: list[list[Cpu]] = []  # by zone
        self.cpu = 0
        self.nodes = Nodes([0] * len(zones), [[0]])

    # -- taking -------------------------------------------------------------------------------------------------------
    def asked(self, mt: int, node: int, allowed: set[int] | None) -> list[int]:
        """The zones for memory that wants a node: its own first, high ones before low ones, then those of the next node."""
        near = self.nodes.nearest[node]
        place = {number: (near.index(of), -self.zones[number].kind) for number, of in enumerate(self.nodes.of_zone)}
        numbers = sorted(place, key=lambda number: place[number]) if self.nodes.several() else list(place)
        mine = [number for number in numbers if allowed is None or self.nodes.of_zone[number] in allowed]
        return [number for number in mine if self.may_use(self.zones[number], mt)]

    def alloc(self, order: int, mt: int, node: int = 0, allowed: set[int] | None = None) -> int | None:
        """First frame of 2^order contiguous ones, of an allowed node, the nearest first; None where no zone may give them."""
        pfn = self.alloc_easily(order, mt, node, allowed)
        return self.alloc_hard(order, mt, node, allowed) if pfn is None and any(self.low) else pfn

    def alloc_easily(self, order: int, mt: int, node: int = 0, allowed: set[int] | None = None) -> int | None:
        """From above the low watermarks; without mixing types first, where that is to be avoided."""
        numbers = self.asked(mt, node, allowed)
        if numbers and self.nofragment and self.zones[numbers[0]].kind == ZONE_NORMAL:
            first = self.nodes.of_zone[numbers[0]]
            mine = [number for number in numbers if self.nodes.of_zone[number] == first]
            kinds = {zone.kind for zone, of in zip(self.zones, self.nodes.of_zone, strict=True) if of == first}
            if not self.nodes.several() or ZONE_DMA32 in kinds:
                pfn = self.first_of(mine, order, mt, self.low, BLOCK_ORDER)
                if pfn is not None:
                    return pfn
        return self.first_of(numbers, order, mt, self.low, 0)

    def alloc_hard(self, order: int, mt: int, node: int = 0, allowed: set[int] | None = None) -> int | None:
        """From above the min watermarks."""
        return self.first_of(self.asked(mt, node, allowed), order, mt, [0] * len(self.zones), 0)

    def first_of(self, numbers: list[int], order: int, mt: int, marks: list[int], least: int) -> int | None:
        """From the first of these zones that is above its mark, and has any."""
        for number in numbers:
            short = bool(self.cpus) and order > 0 and not self.has_chunk(number, order, mt)
            rest = self.spare(number, mt) - (1 << order)
            if self.cpus and (short or rest < self.high[number]):
                self.below_high[number] = True
            if short or rest < marks[number]:
                continue
            pfn = self.from_zone(number, order, mt, least if order < BLOCK_ORDER else 0)
            if pfn is not None:
                self.nodes.note(self.nodes.of_zone[numbers[0]], self.nodes.of_zone[number], order)
                return pfn
        return None

    def node_of(self, pfn: int) -> int:
        return self.nodes.of_zone[self.zone_of(pfn)]

    def has_chunk(self, zone: int, order: int, mt: int, atomic: bool = False) -> bool:
        types = {*FALLBACKS, *([CMA] if mt == MOVABLE else []), *([HIGHATOMIC] if atomic else [])}
        return any(self.lists[zone][other][large] for other in types for large in range(order, NR_ORDERS))

    # -- those who cannot wait ----------------------------------------------------------------------------------------
    def alloc_atomic(self, order: int, mt: int, node: int = 0, allowed: set[int] | None = None) -> int | None:
        """After `easily` was in vain: down to three eighths of the min watermark, and of HIGHATOMIC blocks."""
        numbers = self.asked(mt, node, allowed)
        for number in numbers:
            if not self.is_above_atomic(number, order, mt, self.high[number]):
                self.below_high[number] = True
            if self.is_above_atomic(number, order, mt, 0):
                pfn = self.from_zone_atomic(number, order, mt)
                if pfn is not None:
                    self.nodes.note(self.nodes.of_zone[numbers[0]], self.nodes.of_zone[number], order)
                    return pfn
        return None

    def is_above_atomic(self, zone: int, order: int, mt: int, above: int) -> bool:
        if self.cpus and order > 0 and not self.has_chunk(zone, order, mt, True):
            return False
        rest = self.zone_free(zone) - (0 if mt == MOVABLE else self.free_of(zone, CMA)) - (1 << order)
        marks = [self.minimum[zone] + above + self.boost[zone]]
        if order == 0 and above == 0:
            marks.append(self.minimum[zone])
        for mark in marks:
            half = mark - mark // 2
            if rest >= half - half // 4 + self.zones[zone].reserve - self.minimum[zone]:
                return True
        return False

    def from_zone_atomic(self, zone: int, order: int, mt: int) -> int | None:
        if order == 0:
            pfn = self.from_zone(zone, order, mt, 0)
            if pfn is None:
                pfn = self.smallest(zone, order, HIGHATOMIC)
                self.seen["reserve for a base page"] += pfn is not None
            return pfn
        pfn = self.from_cpu(zone, order, mt, 0)
        if pfn is None:
            pfn = self.smallest(zone, order, HIGHATOMIC)
            self.seen["from the reserve"] += pfn is not None
        if pfn is None:
            pfn = self.from_lists(zone, order, mt, 0)
        if pfn is not None:
            self.reserve_highatomic(zone, pfn // BLOCK_PAGES)
        return pfn

    def blocks_highatomic(self, zone: int) -> int:
        blocks = range(self.zones[zone].start, self.zones[zone].end)
        return sum(HIGHATOMIC in (self.blocktype[block], self.origins.get(block)) for block in blocks)

    def reserve_highatomic(self, zone: int, block: int) -> None:
        """Up to a hundredth of the zone, in whole blocks; none in a zone of which that is less."""
        hundredth = (self.zones[zone].end - self.zones[zone].start) * BLOCK_PAGES // 100
        most = -(-hundredth // BLOCK_PAGES) if hundredth >= BLOCK_PAGES else 0
        if self.blocks_highatomic(zone) < most and self.blocktype[block] in FALLBACKS:
            self.retype(block, HIGHATOMIC)
            self.seen["reserved"] += 1

    def unreserve_highatomic(self, mt: int, force: bool, node: int = 0, allowed: set[int] | None = None) -> bool:
        """One block, or two that are one chunk, become of the type; one stays unless forced. Whether anything was free."""
        for number in self.asked(mt, node, allowed):
            if self.blocks_highatomic(number) <= (0 if force else 1):
                continue
            for order, pfns in enumerate(self.lists[number][HIGHATOMIC]):
                if pfns:
                    pfn = pfns[0]
                    self.seen["given up"] += 1
                    if order <= BLOCK_ORDER:
                        self.retype(pfn // BLOCK_PAGES, mt)
                    else:
                        self.take(pfn)
                        self.blocktype[pfn // BLOCK_PAGES] = self.blocktype[pfn // BLOCK_PAGES + 1] = mt
                        self.put(pfn, order, tail=True)
                    return True
        return False

    def from_zone(self, zone: int, order: int, mt: int, least: int) -> int | None:
        pfn = self.from_cpu(zone, order, mt, least)
        return self.from_lists(zone, order, mt, least) if pfn is None else pfn

    def from_cpu(self, zone: int, order: int, mt: int, least: int) -> int | None:
        """Of the CPU's list, which is filled where it is empty."""
        if not self.keeps(order):
            return None
        cpu = self.cpus[zone][self.cpu]
        cpu.free_count //= 2
        index = self.index(order, mt)
        if not cpu.lists[index]:
            cpu.lists[index] += self.batch(zone, cpu, order, mt, least)
        cpu.touched = cpu.touched or (bool(cpu.lists[index]) and order < BLOCK_ORDER)
        return cpu.lists[index].pop(0) if cpu.lists[index] else None

    def from_lists(self, zone: int, order: int, mt: int, least: int) -> int | None:
        """Of the free lists."""
        pfn = self.own(zone, order, mt)
        if pfn is None:
            pfn = self.claim(zone, order, mt, least)
        if pfn is None and least == 0:
            pfn = self.steal(zone, order, mt)
        return pfn

    def keeps(self, order: int) -> bool:
        return bool(self.cpus) and any(order == kept for kept, _ in LISTS)

    def index(self, order: int, mt: int) -> int:
        return LISTS.index((order, mt if order < BLOCK_ORDER or mt == MOVABLE else 0))

    def batch(self, zone: int, cpu: Cpu, order: int, mt: int, least: int) -> list[int]:
        """A batch, in the order in which it comes off the free lists; after a stolen chunk only stolen ones."""
        found: list[int] = []
        stealing = False
        for _ in range(self.batch_size(zone, cpu, order)):
            pfn = None
            if not stealing:
                pfn = self.own(zone, order, mt)
                if pfn is None:
                    pfn = self.claim(zone, order, mt, least)
            if pfn is None and least == 0:
                pfn = self.steal(zone, order, mt)
                stealing = True
            if pfn is None:
                break
            found.append(pfn)
        return found

    def batch_size(self, zone: int, cpu: Cpu, order: int) -> int:
        if cpu.clamp() < cpu.batch:
            return 1
        size = cpu.batch if order else cpu.batch * 2**cpu.alloc_factor
        if cpu.high_min != cpu.high_max and not self.below_high[zone]:
            cpu.high = min(cpu.high + size, cpu.high_max)
        if order == 0:
            room = max(cpu.high - cpu.count() - cpu.batch, cpu.batch)
            if size <= room:
                cpu.alloc_factor = min(cpu.alloc_factor + 1, LARGEST_SHIFT)
            size = min(size, room)
        return max(size // 2**order, 2) if size > 1 else size

    # -- giving back --------------------------------------------------------------------------------------------------
    def free(self, pfn: int, order: int) -> None:
        """To the list of the CPU that works now, or at once."""
        mt = self.blocktype[pfn // BLOCK_PAGES]
        if not self.keeps(order) or mt == ISOLATE:
            self.free_now(pfn, order)
            return
        zone = self.zone_of(pfn)
        cpu = self.cpus[zone][self.cpu]
        cpu.alloc_factor //= 2
        index = self.index(order, mt if mt in FALLBACKS else MOVABLE)
        cpu.lists[index].insert(0, pfn)
        cpu.touched = cpu.touched or order < BLOCK_ORDER
        in_between = 0 < order < BLOCK_ORDER
        many = in_between and cpu.freed_high and cpu.free_count >= cpu.batch + cpu.high_min // 2 and cpu.count() >= cpu.batch
        cpu.freed_high = in_between
        if cpu.free_count < cpu.batch * 2**LARGEST_SHIFT:
            cpu.free_count += 2**order
        limit = self.limit(zone, cpu, many)
        if cpu.count() < limit:
            return
        if many:
            pages = cpu.batch * 2**LARGEST_SHIFT
        elif limit < cpu.batch:
            pages = 1
        else:
            pages = max(cpu.batch, min(cpu.free_count, limit - cpu.batch))
        while pages > 0:
            batch = min(pages, cpu.batch) if self.in_batches else pages
            self.give_back(cpu, batch, index)
            pages -= batch
        if self.spare(zone, 0) - 1 >= self.high[zone]:
            self.below_high[zone] = False

    def limit(self, zone: int, cpu: Cpu, many: bool) -> int:
        high = cpu.clamp()
        if high == 0:
            return 0
        if many:
            cpu.high = max(high - cpu.batch * 2**LARGEST_SHIFT, cpu.high_min)
            return 0
        if zone in self.reclaiming:
            cpu.high = max(high - max(cpu.free_count, cpu.batch), cpu.high_min)
            return min(4 * cpu.batch, cpu.high)
        if cpu.high_min == cpu.high_max:
            return high
        if self.below_high[zone]:
            cpu.high = max(high - max(cpu.free_count, cpu.batch), cpu.high_min)
            return max(cpu.count(), cpu.high_min)
        if cpu.count() >= high:
            cpu.high = max(high, min(max(cpu.free_count + cpu.batch, cpu.high_min), cpu.high_max))
        return high

    def give_back(self, cpu: Cpu, pages: int, index: int) -> None:
        """The oldest of list `index`, then of the next ones, until so many pages went."""
        pages = min(pages, cpu.count())
        while pages > 0:
            if cpu.lists[index]:
                order = LISTS[index][0]
                cpu.touched = cpu.touched or order < BLOCK_ORDER
                self.free_now(cpu.lists[index].pop(), order)
                pages -= 2**order
            else:
                index = (index + 1) % len(LISTS)

    def drain(self, zone: int, number: int) -> None:
        cpu = self.cpus[zone][number]
        while cpu.count():
            self.give_back(cpu, cpu.batch * 2**LARGEST_SHIFT, 0)

    def drain_zone(self, zone: int) -> None:
        for number in range(len(self.cpus[zone]) if self.cpus else 0):
            self.drain(zone, number)

    def drain_all(self) -> None:
        for zone in range(len(self.zones)):
            self.drain_zone(zone)

    def decay(self) -> None:
        """Each second: a limit that grew shrinks by an eighth, and what is above it goes, in batches.

        Of other nodes' zones one more batch goes where nothing was touched for three seconds.
        """
        for number in range(len(self.cpus[0]) if self.cpus else 0):
            for zone in range(len(self.zones)):
                cpu = self.cpus[zone][number]
                cpu.expire, cpu.touched = 3 if cpu.touched else cpu.expire, False
                if cpu.high > cpu.high_min:
                    cpu.high = max(cpu.count() - cpu.batch * 2**LARGEST_SHIFT, cpu.high - cpu.high // 8, cpu.high_min)
                excess = cpu.count() - cpu.high
                for done in range(0, excess, cpu.batch):
                    self.give_back(cpu, min(cpu.batch, excess - done), 0)
                if self.nodes.of_zone[zone] != self.nodes.of_cpu(number) and cpu.expire and cpu.count():
                    cpu.expire -= 1
                    self.give_back(cpu, 0 if cpu.expire else cpu.batch, 0)

    # -- what can be seen ---------------------------------------------------------------------------------------------
    def suits_compaction(self, zone: int, order: int, above: int = 0) -> bool:
        """Twice what is wanted is free above the min watermark; for orders above 3, above the low one, and in pieces."""
        if self.spare(zone, MOVABLE) - (2 << order) < above + (self.low[zone] if order > 3 else 0):
            return False
        return order <= 3 or self.lies_in_pieces(zone, order)

    def lies_in_pieces(self, zone: int, order: int) -> bool:
        """A chunk is not to be had as free memory lies in pieces: about half as large on average (vm.extfrag_threshold)."""
        sizes = [2**size for by_order in self.lists[zone] for size, chunks in enumerate(by_order) for _ in chunks]
        if max(sizes, default=0) >= 2**order:
            return True
        return bool(sizes) and 1000 - (1000 + sum(sizes) * 1000 // 2**order) // len(sizes) not in range(501)

    def kept(self) -> dict[tuple[int, int, int], list[int]]:
        """(zone, CPU, list) -> first frames, head first."""
        return {
            (zone, number, index): list(pfns)
            for zone, cpus in enumerate(self.cpus)
            for number, cpu in enumerate(cpus)
            for index, pfns in enumerate(cpu.lists)
            if pfns
        }

    def check(self) -> set[int]:
        """Assert that a frame is free once, on lists of CPUs too; the set of all free frames."""
        frames = super().check()
        for (_, _, index), pfns in self.kept().items():
            for pfn in pfns:
                chunk = set(range(pfn, pfn + 2 ** LISTS[index][0]))
                assert not frames & chunk, f"frame free twice near {pfn}"
                frames |= chunk
        return frames
