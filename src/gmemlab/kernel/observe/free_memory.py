"""Free memory as /proc tells it: the files that a snapshot is made of, and bytes free by order."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gmemlab.kernel.features import read_required
from gmemlab.kernel.procfs import parse_buddyinfo, parse_meminfo, parse_pagetypeinfo, parse_zoneinfo

FILES: Final = ("proc/buddyinfo", "proc/pagetypeinfo", "proc/zoneinfo", "proc/meminfo", "proc/sys/kernel/osrelease")
PROTECTED: Final = "DMA"  # the zone that memory of guests never comes from
_LIVE: Final = Path("/")
_PAGE: Final = 4096
_DEFERRED_LEAST: Final = 64 << 20


def read_files(root: Path = _LIVE) -> dict[str, str]:
    """Return the text of each of `FILES`, by name: `gmemlab.capture` reads a copy of them anywhere.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: one of them cannot be read.
    """
    return {name: read_required(root, name) for name in FILES}


def free_by_order(root: Path = _LIVE) -> tuple[int, ...]:
    """Return the bytes that are free in chunks of each order, without zone DMA.

    Pages on the per-CPU lists count as chunks of one page. Memory that the kernel has not handed to its free lists yet counts
    as chunks of the largest order, which is what it will be.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: a file of /proc cannot be read.
        UsageError: one is not of its form.
    """
    zones = parse_buddyinfo(read_required(root, "proc/buddyinfo"))
    places = parse_zoneinfo(read_required(root, "proc/zoneinfo"))
    hidden = {(zone.node, zone.name): sum(zone.pcp_counts) for zone in places}
    free = parse_meminfo(read_required(root, "proc/meminfo")).free
    bytes_by_order = [0] * len(zones[0].counts)
    listed = sum(hidden.values()) * _PAGE
    for zone in zones:
        sizes = [count * (_PAGE << order) for order, count in enumerate(zone.counts)]
        listed += sum(sizes)
        if zone.zone != PROTECTED:
            sizes[0] += hidden[zone.node, zone.zone] * _PAGE
            bytes_by_order = [one + other for one, other in zip(bytes_by_order, sizes, strict=True)]
    highest = max(places, key=lambda zone: zone.start_pfn + zone.spanned)
    if _DEFERRED_LEAST < free - listed <= (highest.present - highest.managed) * _PAGE:
        bytes_by_order[-1] += free - listed
    return tuple(bytes_by_order)


def unmovable_blocks(root: Path = _LIVE) -> int:
    """Return how many page blocks of 2 MiB are unmovable, without zone DMA.

    Args:
        root: the directory that stands for ``/``.

    Raises:
        UnsupportedError: not root.
        UsageError: the file is not of its form.
    """
    info = parse_pagetypeinfo(read_required(root, "proc/pagetypeinfo"))
    return sum(zone.blocks.get("Unmovable", 0) for zone in info.blocks if zone.zone != PROTECTED)


def as_counters(name: str, by_order: Sequence[int]) -> dict[str, int]:
    """Return free memory by order as counters of a sighting.

    Args:
        name: of the moment.
        by_order: bytes.
    """
    return {f"{name}/{order}": size for order, size in enumerate(by_order)}


def from_counters(name: str, counters: Mapping[str, int]) -> tuple[int, ...]:
    """Return what `as_counters` was given.

    Args:
        name: of the moment.
        counters: of a sighting.
    """
    orders = sum(key.startswith(f"{name}/") for key in counters)
    return tuple(counters[f"{name}/{order}"] for order in range(orders))
