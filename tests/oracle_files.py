"""What the oracle speaks of: policies, pages, folios, files and huge page pools.

One object per folio, one dictionary entry per page. Counts are in 4 KiB pages unless a name says otherwise.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypedDict

from gmemlab.core.hardware.counts import HOST_UNMAP
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    CONVERT_IN_PLACE,
    CONVERT_NONE,
    CONVERT_TWO_SOURCES,
    EFFORT_NONE,
    EFFORT_ONCE,
    EFFORT_RETRY,
    FRESH,
    GIGA_ORDER,
    GUEST_GENERIC,
    KIND_ANON,
    KIND_GUEST_MEMFD,
    KIND_HUGETLB,
    MERGE_NEVER,
    PHASE_BOOT,
    PUNCH_DEFER,
    PUNCH_SPLIT,
    SOURCE_BUDDY,
    SOURCE_POOL,
    SPLIT_UNIFORM,
    STALE,
    UNSPECIFIED,
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
    "shattered_move",
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
    "missed_pages",
    "slabs_scanned",
    "deferred_split",
    "deferred_freed",
    "compact_failed",
    "compact_stall",
    "compact_fail",
    "compact_success",
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
    truncation: int = 0
    accept_mark: int = 0

    def beside(self) -> "OraclePolicy":
        """The policy of the ordinary memory beside a two-source guest, where it has huge pages with khugepaged and effort."""
        sizes = self.shared_sizes or (0,)
        if BLOCK_ORDER not in sizes:
            return OraclePolicy(KIND_ANON, sizes, movable=True, punch=PUNCH_DEFER)
        effort = EFFORT_ONCE if self.effort == EFFORT_RETRY else self.effort
        return OraclePolicy(KIND_ANON, sizes, effort=effort, movable=True, punch=PUNCH_DEFER, repair=self.repair)

    @property
    def is_possible(self) -> bool:
        """Which combinations of choices make sense at all."""
        sizes = self.sizes
        if not sizes or list(sizes) != sorted(set(sizes), reverse=True) or min(sizes) < 0:
            return False
        confidential = self.kind == KIND_GUEST_MEMFD
        if self.source == SOURCE_POOL and (sizes not in ((BLOCK_ORDER,), (GIGA_ORDER,))):
            return False
        if self.source == SOURCE_POOL and not confidential and self.kind != KIND_HUGETLB:
            return False
        if self.source == SOURCE_BUDDY and (max(sizes) > BLOCK_ORDER or self.kind == KIND_HUGETLB):
            return False
        if confidential and self.punch == PUNCH_DEFER:
            return False
        return confidential or self.conversion == CONVERT_NONE


class Observation(TypedDict):
    """Everything that two implementations must agree on."""

    free: dict[tuple[int, int, int], list[int]]
    kept: dict[tuple[int, int, int], list[int]]
    blocktypes: list[int]
    files: dict[int, dict[int, tuple[int, int, int, int, int]]]
    blocks: dict[int, dict[int, tuple[int, int, int]]]
    pools: dict[int, tuple[int, int, int, list[int], list[tuple[int, int]]]]
    promised: dict[int, list[int]]
    orphans: list[int]
    deferred: list[int]
    queues: list[tuple[int, list[int]]]  # of the deferred-split shrinker, by node: what it left undone, and first frames
    scanners: list[tuple[int, ...]]  # of compaction, by zone: where they start, and whether hints are to be cleared
    skipped: list[int]
    counters: dict[str, int]
    boosts: list[int]
    nodes: list[tuple[int, int, int]]
    mounts: list[tuple[int, int]]
    page_states: dict[int, dict[int, tuple[int, int]]]
    entries: dict[int, dict[int, tuple[int, int]]]
    kept_entries: int
    host_mapped: dict[int, list[int]]
    hazards: dict[tuple[int, int], int]
    operations: dict[tuple[int, int], int]
    direct: list[int]


@dataclass
class Rmp:
    """The RMP of a host: frames assigned to guests, host blocks with one entry, and how the kernel's own mapping was split."""

    assigned: set[int] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)
    direct: set[int] = field(default_factory=set)


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
        return any(self.file.pages[index].content in (USED, STALE, UNSPECIFIED) for index in self.members)


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
    node_mode: int = 0  # NODES_*
    allowed: frozenset[int] = frozenset()  # the nodes that its policy names
    home: int = 0
    il_prev: int = 0
    mount: "Mount | None" = None  # hugetlb
    guest: int = GUEST_GENERIC
    phase: int = PHASE_BOOT
    accepted: set[int] = field(default_factory=set)
    one_way: set[int] = field(default_factory=set)  # TDX: blocks that a 4 KiB accept forbade to be mapped at 2 MiB (G79)
    zapped: set[int] = field(default_factory=set)  # blocks whose pages in use fault back when the operation is over
    host_mapped: set[int] = field(default_factory=set)  # by its VMM
    rmp: "Rmp | None" = None  # of its host, for an SNP guest
    operations: Counter[tuple[int, int]] = field(default_factory=Counter)  # of its host
    other: "File | None" = None  # the ordinary memory of a two-source guest

    def note(self, operation: int, count: int = 1) -> None:
        """Count what the hardware did for this guest."""
        if count:
            self.operations[operation, self.phase] += count

    def unmap_host(self, indexes: Iterable[int]) -> None:
        """The VMM loses its mapping of pages."""
        lost = self.host_mapped & set(indexes)
        self.host_mapped -= lost
        self.note(HOST_UNMAP, len(lost))

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
    """Huge pages of one order; `idle` holds first frames, the newest first: each node's are a stack. Counts are by node."""

    order: int
    nr_on: Counter[int] = field(default_factory=Counter)
    surplus_on: Counter[int] = field(default_factory=Counter)
    reserved: int = 0
    hvo: bool = False
    overcommit: int = 0
    grows_next: int = 0
    shrinks_next: int = 0
    idle: list[int] = field(default_factory=list)

    @property
    def nr(self) -> int:
        return sum(self.nr_on.values())

    @property
    def surplus(self) -> int:
        return sum(self.surplus_on.values())


@dataclass(eq=False)
class Mount:
    """A mount of hugetlbfs: at most so many huge pages are used, so many are kept for it; None for no limit."""

    pool: Pool
    most: int | None
    least: int | None
    kept: int = 0  # of `least`, how many no file has
    used: int = 0

    def get(self, pages: int) -> int | None:
        """How many the pool has yet to promise; None above the limit."""
        if self.most is not None and self.used + pages > self.most:
            return None
        self.used += pages if self.most is not None else 0
        from_kept = min(pages, self.kept)
        self.kept -= from_kept
        return pages - from_kept

    def put(self, pages: int) -> int:
        """How many promises the pool may forget."""
        self.used -= pages if self.most is not None else 0
        if self.least is None or self.used >= self.least:
            return pages
        into_kept = min(pages, self.least - self.kept)
        self.kept += into_kept
        return pages - into_kept
