"""A host's free memory as plain data: the zones' free lists, page blocks and watermarks, and the huge-page settings.

`capture` takes it from the running kernel, ``save()`` and ``load()`` keep it as JSON. Pages are 4 KiB, a chunk of
order o has 2^o of them, and the counts of chunks are indexed by order, 0 to 10.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from gmemlab.errors import UsageError
from gmemlab.json_lines import json_line
from gmemlab.kernel.features import HugetlbPool, Thp
from gmemlab.records import decode
from gmemlab.whole_file import write_whole

FORMAT: Final = 1
NR_ORDERS: Final = 11
BLOCK_ORDER: Final = 9
HUGE_ORDER: Final = 9  # 2 MiB
GIGA_ORDER: Final = 18  # 1 GiB
PAGE_SIZE: Final = 4096
UNKNOWN: Final = "Unknown"  # migratetype of free chunks where only their totals could be read
MIGRATETYPES: Final = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA", "Isolate", UNKNOWN)
ZONE_KINDS: Final = ("DMA", "DMA32", "Normal", "Movable")
_UNMOVABLE_TYPES: Final = ("Unmovable", "Movable", "Reclaimable", UNKNOWN)  # whose chunks such a request may take
_MOVABLE_TYPES: Final = (*_UNMOVABLE_TYPES, "CMA")
_LOCAL_DISTANCE: Final = 10  # LOCAL_DISTANCE
_FARTHEST: Final = 254  # a byte of the SLIT; 255 says unreachable
_MOST_NODES: Final = 32
_LARGEST_PFN: Final = 1 << 40  # 52-bit physical addresses
_FILE_FORM: Final = "a file written by `gmemlab host --save`"


@dataclass(frozen=True, slots=True)
class FreeChunks:
    """Free chunks of one migratetype by order; those of the orders in ``at_least`` are lower bounds (K23)."""

    counts: tuple[int, ...]
    at_least: tuple[int, ...] = ()

    @property
    def pages(self) -> int:
        """Pages in these chunks."""
        return sum(count << order for order, count in enumerate(self.counts))

    def chunks_of(self, order: int) -> int:
        """Return how many aligned chunks of ``order`` these chunks contain (order 0 to 10)."""
        return sum(count << larger - order for larger, count in enumerate(self.counts) if larger >= order)


@dataclass(frozen=True, slots=True)
class ZoneSnapshot:
    """One zone. Everything is in pages, ``blocks`` in page blocks of 2 MiB.

    ``reserve_pages`` is what must stay free when a request that prefers the Normal zone is served: the min watermark
    and the lowmem protection. ``free`` and ``blocks`` go by migratetype (names of ``MIGRATETYPES``); ``blocks`` is
    empty and ``free`` has ``UNKNOWN`` alone where the kernel told totals only. ``pcp_pages`` are free on the CPUs' own
    lists, in neither. ``deferred_pages`` are free too, but not managed yet: this kernel hands them over on demand, in
    ascending order.
    """

    node: int
    kind: str
    start_pfn: int
    spanned_pages: int
    present_pages: int
    managed_pages: int
    min_pages: int
    low_pages: int
    high_pages: int
    reserve_pages: int
    free: Mapping[str, FreeChunks]
    blocks: Mapping[str, int]
    pcp_pages: int = 0
    deferred_pages: int = 0

    @property
    def free_pages(self) -> int:
        """Pages on the free lists, all migratetypes; neither per-CPU lists nor deferred pages."""
        return sum(chunks.pages for chunks in self.free.values())

    def chunks_of(self, order: int, *, movable: bool) -> int:
        """Return how many chunks of ``order`` a request could get now, leaving the reserve; deferred pages apart.

        Args:
            order: 0 to 10.
            movable: whether the request is for movable memory; others get nothing from ZONE_MOVABLE and CMA (K15).
        """
        if self.kind == "Movable" and not movable:
            return 0
        types = _MOVABLE_TYPES if movable else _UNMOVABLE_TYPES
        usable = [chunks for name, chunks in self.free.items() if name in types]
        spare = max(0, sum(chunks.pages for chunks in usable) - self.reserve_pages)
        return min(spare >> order, sum(chunks.chunks_of(order) for chunks in usable))


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """One NUMA node, with memory or without: its CPUs, and its distances to all nodes in the order of the snapshot."""

    node: int
    cpus: int
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The free memory of one machine at one time.

    ``date`` is UTC in ISO 8601; ``nodes`` counts the NUMA nodes with memory; ``memory_bytes`` is MemTotal; ``notes``
    says, one sentence each, what could not be read, or was inferred; ``reclaimable_pages`` are those of the page cache on the
    lists that reclaim takes from (Active(file) and Inactive(file); shmem and mlocked pages are not among them). ``topology``
    has all online nodes, or none where the kernel tells nothing of them.
    """

    format: int = field(default=FORMAT, kw_only=True)
    release: str
    date: str
    cpu: str
    nodes: int
    memory_bytes: int
    zones: tuple[ZoneSnapshot, ...]
    thp: Thp | None = None
    hugetlb: tuple[HugetlbPool, ...] = ()
    notes: tuple[str, ...] = ()
    reclaimable_pages: int = 0
    topology: tuple[NodeSnapshot, ...] = ()

    @property
    def free_pages(self) -> int:
        """Pages on the free lists of all zones."""
        return sum(zone.free_pages for zone in self.zones)

    @property
    def deferred_pages(self) -> int:
        """Free pages that the kernel has not handed to its free lists yet."""
        return sum(zone.deferred_pages for zone in self.zones)

    def unusable_index(self, order: int = HUGE_ORDER) -> float | None:
        """Return the unusable-free-space index: the share of free pages outside chunks of ``order`` and more, 0 to 1.

        It looks at the free lists only, as the kernel's own index does. None if nothing is free.
        """
        free = self.free_pages
        if not free:
            return None
        usable = sum(chunks.chunks_of(order) for zone in self.zones for chunks in zone.free.values()) << order
        return (free - usable) / free

    def chunks_of(self, order: int = HUGE_ORDER, *, movable: bool) -> int:
        """Return how many chunks of ``order`` could be had from the free lists now, leaving every zone's reserve.

        Args:
            order: 0 to 10.
            movable: whether they are for movable memory.
        """
        return sum(zone.chunks_of(order, movable=movable) for zone in self.zones)

    def giga_at_most(self) -> int:
        """Return an upper bound of the 1 GiB pages to be had: free lists do not tell which 4M chunks are adjacent.

        None come from ZONE_MOVABLE, as they do not move.
        """
        largest = NR_ORDERS - 1
        return sum(
            (zone.chunks_of(largest, movable=True) << largest >> GIGA_ORDER) + (zone.deferred_pages >> GIGA_ORDER)
            for zone in self.zones
            if zone.kind != "Movable"
        )

    def check(self) -> None:
        """Refuse impossible numbers and names. Raises UsageError with the key."""
        _check(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the snapshot as JSON; the file is either complete or as it was before.

        Raises:
            UsageError: the file cannot be written.
        """
        target = Path(path)
        text = json.dumps(asdict(self), indent=1) + "\n"
        try:
            write_whole(target, text)
        except OSError as error:
            raise UsageError(f"cannot be written: {error.strerror}", file=target) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a snapshot that ``save`` wrote.

        Raises:
            UsageError: the file cannot be read, is truncated, or holds something else; with the place and what is
                allowed.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            data: object = json.loads(text)
        except OSError as error:
            raise UsageError(f"cannot be read: {error.strerror}", file=path, allowed=_FILE_FORM) from error
        except json.JSONDecodeError as error:
            problem = f"not JSON, or truncated: {error.msg} at column {error.colno}"
            raise UsageError(problem, file=path, line=error.lineno, allowed=_FILE_FORM) from error
        except (UnicodeDecodeError, RecursionError) as error:
            raise UsageError("not JSON text", file=path, allowed=_FILE_FORM) from error
        try:
            if isinstance(data, dict) and data.get("format") != FORMAT:
                raise UsageError("unknown format", key="format", value=data.get("format"), allowed=str(FORMAT))
            snapshot = decode(cls, data)
            snapshot.check()
        except UsageError as error:
            raise error.at(file=path, line=json_line(text, error.key) if error.key else None) from error
        return snapshot


def _check(snapshot: Snapshot) -> None:
    if not snapshot.zones:
        raise UsageError("no zones", key="zones")
    _at_most(snapshot.reclaimable_pages, sum(zone.present_pages for zone in snapshot.zones), "reclaimable_pages")
    for index, zone in enumerate(snapshot.zones):
        _check_names(zone, f"zones[{index}]")
        _check_sizes(zone, f"zones[{index}]")
        for key in ("min_pages", "low_pages", "high_pages", "reserve_pages"):
            _at_most(getattr(zone, key), sum(other.managed_pages for other in snapshot.zones), f"zones[{index}].{key}")
    _check_topology(snapshot)
    order = sorted(range(len(snapshot.zones)), key=lambda index: snapshot.zones[index].start_pfn)
    for lower, upper in pairwise(order):
        low, high = snapshot.zones[lower], snapshot.zones[upper]
        if low.start_pfn + low.spanned_pages > high.start_pfn:
            reason = f"begins inside zones[{lower}]; interleaved zones are not modelled"
            allowed = f"{low.start_pfn + low.spanned_pages} and more"
            raise UsageError(reason, key=f"zones[{upper}].start_pfn", value=high.start_pfn, allowed=allowed)


def _check_topology(snapshot: Snapshot) -> None:
    known = [node.node for node in snapshot.topology]
    nodes = sorted({zone.node for zone in snapshot.zones})
    if len(nodes) > _MOST_NODES:
        raise UsageError("too many nodes", key="zones", value=len(nodes), allowed=f"up to {_MOST_NODES}")
    for index, node in enumerate(snapshot.topology):
        key = f"topology[{index}]"
        if known.count(node.node) > 1:
            raise UsageError("a node twice", key=f"{key}.node", value=node.node)
        if len(node.distances) != len(known):
            raise UsageError(
                "wrong number of distances", key=f"{key}.distances", value=len(node.distances), allowed=str(len(known))
            )
        for place, far in enumerate(node.distances):
            if not _LOCAL_DISTANCE <= far <= _FARTHEST:
                allowed = f"{_LOCAL_DISTANCE} to {_FARTHEST}"
                raise UsageError("not a distance", key=f"{key}.distances[{place}]", value=far, allowed=allowed)
    for number in nodes if known else ():
        if number not in known:
            allowed = ", ".join(map(str, known))
            raise UsageError("a zone's node is missing in topology", key="topology", value=number, allowed=allowed)


def _check_names(zone: ZoneSnapshot, key: str) -> None:
    if zone.kind not in ZONE_KINDS:
        raise UsageError("unknown zone", key=f"{key}.kind", value=zone.kind, allowed=", ".join(ZONE_KINDS))
    for table in ("free", "blocks"):
        for name in getattr(zone, table):
            if name not in MIGRATETYPES:
                raise UsageError("unknown migratetype", key=f"{key}.{table}.{name}", allowed=", ".join(MIGRATETYPES))
    for name, chunks in zone.free.items():
        place = f"{key}.free.{name}"
        if len(chunks.counts) != NR_ORDERS:
            raise UsageError("wrong number of orders", key=f"{place}.counts", value=len(chunks.counts), allowed=str(NR_ORDERS))
        if any(order >= NR_ORDERS for order in chunks.at_least):
            raise UsageError("no such order", key=f"{place}.at_least", allowed=f"0 to {NR_ORDERS - 1}")


def _check_sizes(zone: ZoneSnapshot, key: str) -> None:
    if zone.start_pfn + zone.spanned_pages > _LARGEST_PFN:
        raise UsageError("ends beyond 52-bit physical addresses", key=f"{key}.spanned_pages", value=zone.spanned_pages)
    _at_most(zone.present_pages, zone.spanned_pages, f"{key}.present_pages")
    _at_most(zone.managed_pages, zone.present_pages, f"{key}.managed_pages")
    _at_most(zone.deferred_pages, zone.present_pages - zone.managed_pages, f"{key}.deferred_pages")
    _at_most(zone.pcp_pages, zone.present_pages, f"{key}.pcp_pages")
    _at_most(zone.free_pages, zone.present_pages - zone.deferred_pages, f"{key}.free", "more free pages than the zone has")
    first, last = zone.start_pfn >> BLOCK_ORDER, (zone.start_pfn + zone.spanned_pages - 1) >> BLOCK_ORDER
    _at_most(sum(zone.blocks.values()), last - first + 1, f"{key}.blocks", "more page blocks than the zone has")


def _at_most(value: int, most: int, key: str, message: str = "out of range") -> None:
    if value > most:
        raise UsageError(message, key=key, value=value, allowed=f"0 to {most}")
