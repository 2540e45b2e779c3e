"""Takes a snapshot of the running kernel's free memory from /proc and /sys, or from a copy of a machine's."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gmemlab.errors import UnsupportedError, UsageError
from gmemlab.kernel import features, procfs
from gmemlab.snapshot import (
    BLOCK_ORDER,
    NR_ORDERS,
    PAGE_SIZE,
    UNKNOWN,
    ZONE_KINDS,
    FreeChunks,
    NodeSnapshot,
    Snapshot,
    ZoneSnapshot,
)
from gmemlab.units import MIB, format_count, format_size

_DEFERRED_LEAST: Final = 64 * MIB // PAGE_SIZE


def capture(root: Path = Path("/")) -> Snapshot:
    """Take a snapshot of the running kernel.

    Args:
        root: the directory that stands for ``/``; another one reads a copy of a machine's /proc and /sys.

    Raises:
        UnsupportedError: /proc cannot be read or says something else than expected, or its free lists are not those of
            orders 0 to 10 with 2 MiB page blocks.
    """
    try:
        return _capture(root)
    except UsageError as error:
        place = error.file or str(root)
        what = UsageError(error.message, value=error.value, allowed=error.allowed)
        raise UnsupportedError(place if error.line is None else f"{place}:{error.line}", str(what)) from error


def _capture(root: Path) -> Snapshot:
    release = features.read_release(root)
    memory = procfs.parse_meminfo(features.read_required(root, "proc/meminfo"))
    zones = procfs.parse_zoneinfo(features.read_required(root, "proc/zoneinfo"))
    buddy = procfs.parse_buddyinfo(features.read_required(root, "proc/buddyinfo"))
    notes: list[str] = []
    types = _read_types(root, notes)
    _check_geometry(buddy, types)
    populated = [zone for zone in zones if zone.present and zone.name in ZONE_KINDS]
    deferred = _deferred(zones, memory, notes)
    snapshots = tuple(
        _zone_snapshot(zone, _reserve(zone, zones), buddy, types, deferred.get((zone.node, zone.name), 0), notes)
        for zone in populated
    )
    return Snapshot(
        release=release,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        cpu=features.read_cpu_model(root),
        nodes=len({zone.node for zone in populated}),
        memory_bytes=memory.total,
        zones=snapshots,
        thp=features.read_thp(root),
        hugetlb=features.read_hugetlb_pools(root),
        notes=tuple(notes),
        reclaimable_pages=memory.file_lists // PAGE_SIZE,
        topology=_read_topology(root),
    )


def _read_topology(root: Path) -> tuple[NodeSnapshot, ...]:
    """Read /sys/devices/system/node; nothing where the kernel was built without NUMA."""
    found = []
    for folder in (root / "sys/devices/system/node").glob("node*"):
        if folder.name.removeprefix("node").isdecimal():
            place = f"sys/devices/system/node/{folder.name}"
            distances = procfs.parse_distances(features.read_required(root, f"{place}/distance"), f"/{place}/distance")
            cpus = procfs.parse_cpulist(features.read_required(root, f"{place}/cpulist"), f"/{place}/cpulist")
            found.append(NodeSnapshot(int(folder.name.removeprefix("node")), cpus, distances))
    return tuple(sorted(found, key=lambda node: node.node))


def _read_types(root: Path, notes: list[str]) -> procfs.PageTypeInfo | None:
    """Read /proc/pagetypeinfo, which only root may; None, with a note, where that fails."""
    try:
        return procfs.parse_pagetypeinfo(features.read_required(root, "proc/pagetypeinfo"))
    except UnsupportedError as error:
        notes.append(f"{error}: free memory by migratetype and the types of page blocks are unknown (try as root)")
        return None


def _check_geometry(buddy: tuple[procfs.ZoneFree, ...], types: procfs.PageTypeInfo | None) -> None:
    """Refuse machines whose free lists have other sizes than those of x86-64."""
    orders = len(buddy[0].counts)
    if orders != NR_ORDERS:
        raise UnsupportedError("free lists of orders 0 to 10", f"{procfs.BUDDYINFO} has {orders} orders")
    if types is not None and types.block_order != BLOCK_ORDER:
        raise UnsupportedError("2 MiB page blocks", f"{procfs.PAGETYPEINFO} has page blocks of order {types.block_order}")


def _reserve(zone: procfs.Zone, zones: tuple[procfs.Zone, ...]) -> int:
    """Return the pages that a request which prefers the Normal zone must leave in ``zone``."""
    names = [other.name for other in zones if other.node == zone.node]
    normal = names.index("Normal") if "Normal" in names else len(zone.protection)
    return zone.min + (zone.protection[normal] if normal < len(zone.protection) else 0)


def _deferred(zones: tuple[procfs.Zone, ...], memory: procfs.MemInfo, notes: list[str]) -> dict[tuple[int, str], int]:
    """Find the free pages that no free list holds yet, and the zone they belong to.

    A kernel that initialises memory on demand counts all of it in MemFree, but manages only what it has handed out so
    far.
    """
    listed = sum(zone.free + sum(zone.pcp_counts) for zone in zones)
    missing = memory.free // PAGE_SIZE - listed
    highest = max(zones, key=lambda zone: zone.start_pfn + zone.spanned)
    if not _DEFERRED_LEAST < missing <= highest.present - highest.managed:
        return {}
    notes.append(
        f"{format_size(missing * PAGE_SIZE)} of free memory are not on the free lists yet: the kernel hands them to"
        f" zone {highest.name} of node {highest.node} on demand, in ascending order"
    )
    return {(highest.node, highest.name): missing}


def _zone_snapshot(
    zone: procfs.Zone,
    reserve: int,
    buddy: tuple[procfs.ZoneFree, ...],
    types: procfs.PageTypeInfo | None,
    deferred: int,
    notes: list[str],
) -> ZoneSnapshot:
    place = (zone.node, zone.name)
    totals = next((row.counts for row in buddy if (row.node, row.zone) == place), (0,) * NR_ORDERS)
    blocks: Mapping[str, int] = {}
    free = {UNKNOWN: FreeChunks(totals)}
    if types is not None:
        rows = [row for row in types.free if (row.node, row.zone) == place]
        free = _completed({row.migratetype: FreeChunks(row.counts, row.at_least) for row in rows}, totals, place, notes)
        blocks = next((row.blocks for row in types.blocks if (row.node, row.zone) == place), {})
    return ZoneSnapshot(
        node=zone.node,
        kind=zone.name,
        start_pfn=zone.start_pfn,
        spanned_pages=zone.spanned,
        present_pages=zone.present,
        managed_pages=zone.managed,
        min_pages=zone.min,
        low_pages=zone.low,
        high_pages=zone.high,
        reserve_pages=reserve,
        free=free,
        blocks=blocks,
        pcp_pages=sum(zone.pcp_counts),
        deferred_pages=deferred,
    )


def _completed(
    free: dict[str, FreeChunks], totals: tuple[int, ...], place: tuple[int, str], notes: list[str]
) -> dict[str, FreeChunks]:
    """Replace lower bounds (K23) by the rest of /proc/buddyinfo's total where just one type of an order has one."""
    result = dict(free)
    for order, total in enumerate(totals):
        bounded = [name for name, chunks in result.items() if order in chunks.at_least]
        where = f"node {place[0]} zone {place[1]}, order {order}"
        if len(bounded) == 1:
            name = bounded[0]
            chunks = result[name]
            others = sum(other.counts[order] for key, other in result.items() if key != name)
            count = max(chunks.counts[order], total - others)
            counts = (*chunks.counts[:order], count, *chunks.counts[order + 1 :])
            result[name] = FreeChunks(counts, tuple(known for known in chunks.at_least if known != order))
            notes.append(f"{where}: {name} counted as {format_count(count)}, the rest of {procfs.BUDDYINFO}'s total")
        elif bounded:
            notes.append(f"{where}: the counts of {', '.join(bounded)} are lower bounds")
    return result
