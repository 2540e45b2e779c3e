"""``gmemlab host``: what this kernel offers to guests, and how fragmented the machine's free memory is."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmemlab.capture import capture
from gmemlab.cli.output import console, print_json
from gmemlab.kernel.facilities import facilities
from gmemlab.kernel.features import Kvm, probe_kvm
from gmemlab.snapshot import HUGE_ORDER, NR_ORDERS, PAGE_SIZE, Snapshot, ZoneSnapshot
from gmemlab.units import format_count, format_size


def run(
    json: Annotated[bool, typer.Option("--json", help="Print JSON: raw bytes and counts, stable keys.")] = False,
    save: Annotated[Path | None, typer.Option(help="Also write a snapshot, for `compare --host FILE`.")] = None,
) -> int:
    """Print the host's features and its free memory.

    Args:
        json: whether to print JSON instead of tables.
        save: the snapshot's file, if one is wanted.

    Raises:
        UnsupportedError: /proc cannot be read.
        UsageError: the snapshot cannot be written.
    """
    snapshot = capture()
    kvm = probe_kvm()
    live = facilities()
    if save is not None:
        snapshot.save(save)
    if json:
        print_json(as_json(snapshot, kvm, live))
        return 0
    screen = console()
    _print_features(screen, snapshot, kvm)
    _print_facilities(screen, live)
    for zone in snapshot.zones:
        screen.print(_zone_table(zone))
    _print_summary(screen, snapshot)
    if save is not None:
        screen.print(f"Snapshot written to {save}", soft_wrap=True)
    return 0


def as_json(snapshot: Snapshot, kvm: Kvm, live: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``--json`` prints: the snapshot, KVM's features, facilities, the summary (bytes, counts, shares 0 to 1)."""
    return {
        "snapshot": asdict(snapshot),
        "kvm": {
            "available": kvm.available,
            "reason": kvm.reason,
            "guest_memfd": kvm.guest_memfd,
            "guest_memfd_flags": list(kvm.guest_memfd_flags),
            "vm_types": list(kvm.vm_types),
            "capabilities": dict(kvm.capabilities),
        },
        "facilities": {name: {"works": not reason, "reason": reason} for name, reason in live.items()},
        "summary": {
            "free_list_bytes": snapshot.free_pages * PAGE_SIZE,
            "deferred_bytes": snapshot.deferred_pages * PAGE_SIZE,
            "reclaimable_bytes": snapshot.reclaimable_pages * PAGE_SIZE,
            "per_cpu_bytes": sum(zone.pcp_pages for zone in snapshot.zones) * PAGE_SIZE,
            "unusable_index_2m": snapshot.unusable_index(),
            "movable_2m": snapshot.chunks_of(movable=True),
            "unmovable_2m": snapshot.chunks_of(movable=False),
            "at_most_1g": snapshot.giga_at_most(),
        },
        "nodes": [_node_as_json(snapshot, node) for node in sorted({zone.node for zone in snapshot.zones})],
    }


def _node_as_json(snapshot: Snapshot, node: int) -> dict[str, Any]:
    zones = [zone for zone in snapshot.zones if zone.node == node]
    return {
        "node": node,
        "free_list_bytes": sum(zone.free_pages for zone in zones) * PAGE_SIZE,
        "deferred_bytes": sum(zone.deferred_pages for zone in zones) * PAGE_SIZE,
        "per_cpu_bytes": sum(zone.pcp_pages for zone in zones) * PAGE_SIZE,
        "movable_2m": sum(zone.chunks_of(HUGE_ORDER, movable=True) for zone in zones),
        "unmovable_2m": sum(zone.chunks_of(HUGE_ORDER, movable=False) for zone in zones),
        "distances": next((list(other.distances) for other in snapshot.topology if other.node == node), []),
    }


def _print_features(screen: Console, snapshot: Snapshot, kvm: Kvm) -> None:
    nodes = f"{snapshot.nodes} NUMA node{'s' if snapshot.nodes != 1 else ''}"
    screen.print(f"Linux {snapshot.release}", style="bold", end="")
    screen.print(f" · {snapshot.cpu} · {format_size(snapshot.memory_bytes)}, {nodes}\n")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    for name, value in _features(snapshot, kvm):
        grid.add_row(name, value)
    screen.print(grid)
    screen.print()


def _print_facilities(screen: Console, live: Mapping[str, str]) -> None:
    screen.print("For conform and calibrate", style="bold")
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    for name, reason in live.items():
        grid.add_row(name, f"no ({reason})" if reason else "yes")
    screen.print(grid)
    screen.print()


def _features(snapshot: Snapshot, kvm: Kvm) -> Iterator[tuple[str, str]]:
    if kvm.available:
        has = kvm.capabilities
        flags = f" with flags {', '.join(kvm.guest_memfd_flags)}" if kvm.guest_memfd_flags else ""
        yield "KVM", f"yes, VM types: {', '.join(kvm.vm_types) or 'default'}"
        yield "guest_memfd", f"yes{flags}" if kvm.guest_memfd else "no"
        yield "private memory", "yes" if has["KVM_CAP_MEMORY_ATTRIBUTES"] else "no (no memory attributes per VM)"
        yield "pre-fault", "yes" if has["KVM_CAP_PRE_FAULT_MEMORY"] else "no"
    else:
        yield "KVM", f"no (/dev/kvm: {kvm.reason})"
    if snapshot.thp is None:
        yield "THP", "no"
    else:
        thp = snapshot.thp
        words = f"enabled {thp.enabled}, defrag {thp.defrag}" + (f", shmem {thp.shmem}" if thp.shmem else "")
        yield "THP", f"{format_size(thp.pmd_bytes)}; {words}"
    if not snapshot.hugetlb:
        yield "hugetlb", "no"
    for pool in snapshot.hugetlb:
        yield (
            f"hugetlb {format_size(pool.page_bytes)}",
            f"{pool.total} pages, {pool.free} free, {pool.reserved} reserved",
        )


def _zone_table(zone: ZoneSnapshot) -> Table:
    """Return the zone's free chunks: a row for each migratetype that has any, a column for each size."""
    title = Text(f"Node {zone.node}, zone {zone.kind}", style="bold")
    bound = "at least " if any(chunks.at_least for chunks in zone.free.values()) else ""
    title.append(f": {bound}{format_size(zone.free_pages * PAGE_SIZE)} on the free lists", style="not bold")
    if zone.deferred_pages:
        title.append(f", {format_size(zone.deferred_pages * PAGE_SIZE)} not handed out yet", style="not bold")
    table = Table(title=title, title_justify="left", title_style="", box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("free chunks", no_wrap=True)
    for order in range(NR_ORDERS):
        table.add_column(format_size(PAGE_SIZE << order), justify="right", min_width=5, no_wrap=True)
    for name, chunks in zone.free.items():
        if any(chunks.counts):
            cells = (
                f"{'>' if order in chunks.at_least else ''}{format_count(count)}" if count else "·"
                for order, count in enumerate(chunks.counts)
            )
            table.add_row(name, *cells)
    if not zone.free_pages:
        table.add_row("none")
    return table


def _node_summary(snapshot: Snapshot, node: int) -> str:
    found = _node_as_json(snapshot, node)
    free, far = format_size(found["free_list_bytes"]), " ".join(map(str, found["distances"]))
    pages = f"{found['movable_2m']:,} 2M pages for movable memory, {found['unmovable_2m']:,} for unmovable"
    return f"{free} on the free lists, {pages}" + (f"; distances {far}" if far else "")


def _print_summary(screen: Console, snapshot: Snapshot) -> None:
    index = snapshot.unusable_index()
    share = "nothing is free" if index is None else f"{index:.1%} of the bytes on the free lists are in smaller pieces"
    movable, unmovable = snapshot.chunks_of(movable=True), snapshot.chunks_of(movable=False)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column()
    grid.add_row("2M pages now", f"{movable:,} for movable memory, {unmovable:,} for unmovable (above the reserves)")
    if snapshot.deferred_pages:
        later = snapshot.deferred_pages >> HUGE_ORDER
        grid.add_row("2M pages later", f"about {later:,} in memory that is not handed out yet")
    grid.add_row("unusable for 2M", share)
    cached = format_size(snapshot.reclaimable_pages * PAGE_SIZE)
    grid.add_row("reclaimable", f"{cached} of page cache, which is dropped where memory is short (if it is clean)")
    for node in sorted({zone.node for zone in snapshot.zones}) if snapshot.nodes > 1 else ():
        grid.add_row(f"node {node}", _node_summary(snapshot, node))
    grid.add_row("1G pages", f"at most {snapshot.giga_at_most():,} (free lists do not tell which 4M chunks are adjacent)")
    for note in snapshot.notes:
        grid.add_row("note", note)
    screen.print()
    screen.print(grid)
