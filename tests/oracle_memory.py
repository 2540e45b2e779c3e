"""What the oracle knows: policies, pages, folios, files, huge page pools, and who uses each frame.

One object per folio, one dictionary entry per page. Counts are in 4 KiB pages unless a name says otherwise.
"""

from dataclasses import dataclass, field
from typing import Any, TypedDict

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CONVERT_IN_PLACE,
    CONVERT_NONE,
    CONVERT_TWO_SOURCES,
    EFFORT_NONE,
    FRESH,
    GIGA_ORDER,
    KIND_GUEST_MEMFD,
    MERGE_NEVER,
    MOVABLE,
    PUNCH_SPLIT,
    SOURCE_BUDDY,
    SOURCE_POOL,
    SPLIT_UNIFORM,
    STALE,
    UNMOVABLE,
    USED,
)
from oracle_buddy import Buddy

COUNTERS = (
    "split_punch",
    "split_convert",
    "split_failed",
    "stale_pages",
    "lost_pages",
    "shattered_punch",
    "shattered_convert",
    "shattered_accept",
    "healed_mapping",
    "healed_backing",
    "eagain",
    "orphaned_pages",
    "vmm_punch_failed",
    "underused",
    "moved",
    "compactions",
)


@dataclass(frozen=True)
class OraclePolicy:
    """The choices of a policy, in the numbers of `layout.py`. `sizes` and `shared_sizes` are orders, largest first."""

    kind: int = KIND_GUEST_MEMFD
    sizes: tuple[int, ...] = (0,)
    source: int = SOURCE_BUDDY
    effort: int = EFFORT_NONE
    movable: bool = False
    punch: int = PUNCH_SPLIT
    conversion: int = CONVERT_NONE
    split: int = SPLIT_UNIFORM
    merge: int = MERGE_NEVER
    vmm_punch: int = 0
    hvo: bool = False
    shared_sizes: tuple[int, ...] | None = None
    fallocate_sizes: tuple[int, ...] = ()  # where they differ from those that faults try


class Observation(TypedDict):
    """Everything that two implementations must agree on."""

    free: dict[tuple[int, int, int], list[int]]
    blocktypes: list[int]
    files: dict[int, dict[int, tuple[int, int, int, int, int]]]
    blocks: dict[int, dict[int, tuple[int, int, int]]]
    pools: dict[int, tuple[int, int, int, list[int]]]
    promised: dict[int, list[int]]
    orphans: list[int]
    deferred: list[int]
    counters: dict[str, int]


@dataclass(eq=False)
class HugePage:
    """A pool page in use. `chains`: by block, the frames of page structs restored for its split, oldest first."""

    order: int
    pfn: int
    chains: dict[int, list[int]] = field(default_factory=dict)


@dataclass(eq=False)
class Folio:
    """2^order frames from `pfn`, backing the file from `index`.

    `members`: file indexes that are still in the file. `cleared`: no member is fresh any more.
    """

    file: "File"
    index: int
    pfn: int
    order: int
    huge: HugePage | None
    members: set[int]
    cleared: bool = False
    pins: int = 0
    references: int = 0

    def busy(self) -> bool:
        return self.pins + self.references > 0

    def frames(self) -> range:
        return range(self.pfn, self.pfn + (1 << self.order))

    def dirty(self) -> bool:
        return any(self.file.pages[index].content in (USED, STALE) for index in self.members)


@dataclass(eq=False)
class Page:
    """A present page of a file."""

    frame: int
    folio: Folio
    content: int = FRESH


@dataclass(eq=False)
class Hold:
    """One successful pin or reference call: the folios it holds, once per page, ascending."""

    pin: bool
    first: int
    count: int
    folios: list[Folio]


@dataclass(eq=False)
class File:
    """A file: present pages by index, and sets of indexes or of 2 MiB block numbers for everything else."""

    id: int
    size: int
    policy: OraclePolicy
    slots: list[tuple[int, int, int]]
    pages: dict[int, Page] = field(default_factory=dict)
    shared: set[int] = field(default_factory=set)
    mapped: set[int] = field(default_factory=set)
    huge_mapped: set[int] = field(default_factory=set)
    history: set[int] = field(default_factory=set)
    inhibit: set[int] = field(default_factory=set)
    shattered: set[int] = field(default_factory=set)
    holds: list[Hold] = field(default_factory=list)
    reservation: int = 0  # guest_memfd: pool pages that are still its own (G70)
    unseen: set[int] = field(default_factory=set)  # anonymous: blocks with a huge page that the shrinker has not seen (L17)
    tables: set[int] = field(default_factory=set)  # anonymous: blocks that a table of 4 KiB entries maps (L16)
    promised: set[int] = field(default_factory=set)  # hugetlb: numbers of the huge pages in its reservation map (L19)
    other: "File | None" = None  # the ordinary memory of a two-source guest

    def from_pool(self) -> bool:
        return self.policy.source == SOURCE_POOL

    def confidential(self) -> bool:
        return self.policy.kind == KIND_GUEST_MEMFD

    def in_place(self) -> bool:
        return self.policy.conversion == CONVERT_IN_PLACE

    def two_sources(self) -> bool:
        return self.policy.conversion == CONVERT_TWO_SOURCES

    def unit(self) -> int:
        """Pages of one pool page, or of 2 MiB."""
        return 1 << self.policy.sizes[0] if self.from_pool() else BLOCK_PAGES

    def in_units(self) -> bool:
        """Does it allocate and free in huge pages only?"""
        return min(self.policy.sizes) >= BLOCK_ORDER

    def outstanding(self) -> int:
        """Pool pages that are promised to it and that it has not taken yet."""
        present = {index // self.unit() for index in self.pages}
        return self.reservation + len(self.promised - present)

    def folios(self, first: int, end: int) -> list[Folio]:
        """The folios with a present page in [first, end), ascending."""
        return list(dict.fromkeys(self.pages[i].folio for i in range(first, end) if i in self.pages))


@dataclass
class Pool:
    """Huge pages of one order; `idle` holds first frames, top of the stack first."""

    order: int
    nr: int = 0
    reserved: int = 0
    hvo: bool = False
    surplus: int = 0
    overcommit: int = 0
    idle: list[int] = field(default_factory=list)


class Memory:
    """Free lists, pools, orphans, and the folio that uses each frame."""

    def __init__(self, zones: list[tuple[int, int, int, int]], reserved_blocks: set[int], nr_blocks: int) -> None:
        self.buddy = Buddy(zones, reserved_blocks, nr_blocks, self.count_movable)
        self.pools = {BLOCK_ORDER: Pool(BLOCK_ORDER), GIGA_ORDER: Pool(GIGA_ORDER)}
        self.users: dict[int, Folio] = {}
        self.orphans: list[Folio] = []
        self.reserved = {b * BLOCK_PAGES + offset for b in reserved_blocks for offset in range(BLOCK_PAGES)}
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.scanners: dict[int, Any] = {}  # of compaction, by zone

    def count_movable(self, block: int) -> int:
        users = [self.users.get(pfn) for pfn in range(block * BLOCK_PAGES, (block + 1) * BLOCK_PAGES)]
        return sum(1 for folio in users if folio is not None and folio.members and folio.file.policy.movable)

    # -- folios -------------------------------------------------------------------------------------------------------
    def insert(self, file: File, index: int, pfn: int, order: int, huge: HugePage | None = None) -> Folio:
        """A new folio in the file; its pages are fresh."""
        folio = Folio(file, index, pfn, order, huge, set(range(index, index + (1 << order))))
        for offset in range(1 << order):
            file.pages[index + offset] = Page(pfn + offset, folio)
            self.users[pfn + offset] = folio
        return folio

    def cut(self, folio: Folio, pieces: list[tuple[int, int]]) -> None:
        """Replace a folio by pieces (index, order); pages keep frame and content."""
        for index, order in pieces:
            piece = Folio(
                folio.file,
                index,
                folio.pfn + index - folio.index,
                order,
                folio.huge,
                set(range(index, index + (1 << order))),
                folio.cleared,
            )
            for offset in range(1 << order):
                folio.file.pages[index + offset].folio = piece
                self.users[piece.pfn + offset] = piece

    def leave(self, folio: Folio) -> None:
        """All pages of a folio leave the file: free, or orphans until the last pin or reference goes."""
        for index in folio.members:
            del folio.file.pages[index]
        folio.members = set()
        if folio.busy():
            self.orphans.append(folio)
            self.counters["orphaned_pages"] += 1 << folio.order
        else:
            self.release(folio)

    def release(self, folio: Folio) -> None:
        """The frames of a folio without pages and without holds go back to where they came from."""
        for pfn in folio.frames():
            del self.users[pfn]
        if folio.huge is None:
            self.buddy.free(folio.pfn, folio.order)
        else:
            self.give_back(folio.file, folio.huge)

    def drop(self, hold: Hold) -> None:
        """Undo one pin or reference call, page by page ascending."""
        for folio in hold.folios:
            if hold.pin:
                folio.pins -= 1
            else:
                folio.references -= 1
            if folio in self.orphans and not folio.busy():
                self.orphans.remove(folio)
                self.release(folio)

    # -- pools --------------------------------------------------------------------------------------------------------
    def take_huge(self, file: File, index: int) -> HugePage | None:
        """An idle page for the file: one promised to it (G70), to this place of it (L19), or, hugetlb only, to nobody."""
        pool = self.pools[file.policy.sizes[0]]
        number = index // file.unit()
        if file.reservation > 0:
            file.reservation -= 1
            pool.reserved -= 1
        elif number in file.promised:
            pool.reserved -= 1
        elif file.confidential():
            return None
        elif len(pool.idle) <= pool.reserved:
            pfn = self.surplus(pool)
            if pfn is None:
                return None
            file.promised.add(number)
            return HugePage(pool.order, pfn)
        if not file.confidential():
            file.promised.add(number)
        return HugePage(pool.order, pool.idle.pop(0))

    def surplus(self, pool: Pool) -> int | None:
        """A page beyond the pool's size, if it may have one more."""
        pfn = self.huge(pool) if pool.surplus < pool.overcommit else None
        if pfn is not None:
            pool.surplus += 1
            pool.nr += 1
        return pfn

    def promise(self, pool: Pool, pages: int) -> bool:
        """So many pages are promised, with surplus ones where free ones are short; all or none."""
        short = pool.reserved + pages - len(pool.idle)
        for got in range(short):
            pfn = self.surplus(pool)
            if pfn is None:
                self.drop_surplus(pool, got)
                return False
            pool.idle.insert(0, pfn)
        pool.reserved += pages
        return True

    def drop_surplus(self, pool: Pool, most: int) -> None:
        for _ in range(min(most, pool.surplus)):
            if pool.idle:
                self.free_huge(pool, pool.idle.pop(0))
                pool.surplus -= 1

    def free_huge(self, pool: Pool, pfn: int) -> None:
        """A page leaves the pool for free memory, block by block."""
        pool.nr -= 1
        for block in range(pfn, pfn + (1 << pool.order), BLOCK_PAGES):
            self.buddy.free(block, BLOCK_ORDER)

    def resize(self, pool: Pool, count: int, overcommit: int) -> None:
        """Surplus pages become the pool's own first; then it grows, or idle pages go; what is too much is surplus."""
        pool.overcommit = overcommit
        while pool.surplus and pool.nr - pool.surplus < count:
            pool.surplus -= 1
        while pool.nr - pool.surplus < count and self.grow(pool, False):
            pass
        least = max(count, pool.reserved + pool.nr - len(pool.idle))
        while pool.nr - pool.surplus > least and pool.idle:
            self.free_huge(pool, pool.idle.pop(0))
        pool.surplus += max(0, pool.nr - pool.surplus - count)

    def give_back(self, file: File, huge: HugePage) -> None:
        """Free the restored page structs, put the page on top of its pool; guest_memfd gets its reservation back."""
        self.forget_structs(huge)
        pool = self.pools[huge.order]
        if pool.surplus and not file.confidential():
            pool.surplus -= 1
            self.free_huge(pool, huge.pfn)
            return
        pool.idle.insert(0, huge.pfn)
        if file.confidential():
            file.reservation += 1
            pool.reserved += 1

    def restore_structs(self, huge: HugePage, block: int, count: int) -> bool:
        """Allocate `count` frames for page structs of a piece at `block` that HVO had freed (G74); all or none."""
        got: list[int] = []
        for _ in range(count):
            pfn = self.buddy.alloc(0, UNMOVABLE)
            if pfn is None:
                for frame in reversed(got):
                    self.buddy.free(frame, 0)
                return False
            got.append(pfn)
        huge.chains.setdefault(block, []).extend(got)
        return True

    def forget_structs(self, huge: HugePage) -> None:
        """Free all restored frames, block by block, the newest of each first."""
        for block in sorted(huge.chains):
            for pfn in reversed(huge.chains[block]):
                self.buddy.free(pfn, 0)
        huge.chains = {}

    def demote_one(self) -> bool:
        """The idle 1 GiB page that would be used next becomes 512 pages of 2 MiB, the lowest to be used first.

        With HVO, all of its page structs are restored before, and seven of eight frames of each piece freed after.
        """
        giga, small = self.pools[GIGA_ORDER], self.pools[BLOCK_ORDER]
        page = HugePage(GIGA_ORDER, giga.idle[0])
        blocks = range(page.pfn, page.pfn + (1 << GIGA_ORDER), BLOCK_PAGES)
        for pfn in blocks if giga.hvo else ():
            if not self.restore_structs(page, pfn, 7 if pfn == page.pfn else 8):
                self.forget_structs(page)
                return False
        giga.idle.pop(0)
        giga.nr -= 1
        small.nr += len(blocks)
        small.hvo = giga.hvo
        small.idle[:0] = blocks
        for pfn in blocks if giga.hvo else ():
            for frame in reversed(page.chains[pfn][-7:]):
                self.buddy.free(frame, 0)
            self.reserved.update(page.chains[pfn][:-7])
        return True

    def huge(self, pool: Pool) -> int | None:
        """A huge page from free memory."""
        if pool.order == GIGA_ORDER:
            return self.buddy.alloc_giga(MOVABLE)
        return self.buddy.alloc(pool.order, MOVABLE)

    def grow(self, pool: Pool, hvo: bool) -> bool:
        """One more page for the pool; HVO frees the frames of its page structs but the first."""
        pool.hvo = hvo
        pfn = self.huge(pool)
        if pfn is None:
            return False
        pool.nr += 1
        pool.idle.insert(0, pfn)
        if hvo:
            structs = BLOCK_PAGES + 8 * (pfn // BLOCK_PAGES)
            for frame in range(structs + 1, structs + 8 * ((1 << pool.order) // BLOCK_PAGES)):
                self.reserved.remove(frame)
                self.buddy.free(frame, 0)
        return True
