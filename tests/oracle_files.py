"""What the oracle speaks of: policies, pages, folios, files and huge page pools.

One object per folio, one dictionary entry per page. Counts are in 4 KiB pages unless a name says otherwise.
"""

from dataclasses import dataclass, field
from typing import TypedDict

from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CONVERT_IN_PLACE,
    CONVERT_NONE,
    CONVERT_TWO_SOURCES,
    EFFORT_NONE,
    FRESH,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    MERGE_NEVER,
    PUNCH_DEFER,
    PUNCH_SPLIT,
    REPAIR_COLLAPSE,
    SOURCE_BUDDY,
    SOURCE_POOL,
    SPLIT_UNIFORM,
    STALE,
    USED,
)

SCAN_RESULTS = ("collapsed", "holes", "held", "memory", "shared", "huge", "absent")  # of khugepaged, as the core counts them
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
    "kcompactd",
    "copied",
    "firmware_copies",
    "pgscan_kswapd",
    "pgsteal_kswapd",
    "pgscan_direct",
    "pgsteal_direct",
    *(f"scan_{result}" for result in SCAN_RESULTS),
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
    repair: int = 0
    zero_scan: int = 0

    def beside(self) -> "OraclePolicy":
        """The policy of the ordinary memory beside a two-source guest, which khugepaged may scan where it has huge pages."""
        sizes = self.shared_sizes or (0,)
        repair = self.repair & REPAIR_COLLAPSE if BLOCK_ORDER in sizes else 0
        return OraclePolicy(KIND_ANON, sizes, movable=True, punch=PUNCH_DEFER, repair=repair)


class Observation(TypedDict):
    """Everything that two implementations must agree on."""

    free: dict[tuple[int, int, int], list[int]]
    kept: dict[tuple[int, int, int], list[int]]
    blocktypes: list[int]
    files: dict[int, dict[int, tuple[int, int, int, int, int]]]
    blocks: dict[int, dict[int, tuple[int, int, int]]]
    pools: dict[int, tuple[int, int, int, list[int]]]
    promised: dict[int, list[int]]
    orphans: list[int]
    deferred: list[int]
    counters: dict[str, int]
    boosts: list[int]


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
