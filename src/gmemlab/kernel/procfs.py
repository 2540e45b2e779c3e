"""What /proc says about physical memory: /proc/buddyinfo, /proc/pagetypeinfo, /proc/zoneinfo, /proc/meminfo.

Every parser takes the text of a file, and the file's name for its messages. Text that does not look like the file
raises ``UsageError`` with file and line. Counts of chunks are per order (index 0 = one 4 KiB page), pages are 4 KiB.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from gmemlab.errors import UsageError
from gmemlab.units import KIB

BUDDYINFO: Final = "/proc/buddyinfo"
PAGETYPEINFO: Final = "/proc/pagetypeinfo"
ZONEINFO: Final = "/proc/zoneinfo"
MEMINFO: Final = "/proc/meminfo"

_ZONE: Final = re.compile(r"Node\s+(\d+), zone\s+(\w+)")
_COUNT: Final = re.compile(r"(>?)(\d+)")
_BLOCK_ORDER: Final = re.compile(r"Page block order:\s+(\d+)")
_ZONE_FIELDS: Final = {
    "pages free": "free",
    "min": "min",
    "low": "low",
    "high": "high",
    "spanned": "spanned",
    "present": "present",
    "managed": "managed",
    "start_pfn:": "start_pfn",
}
_REQUIRED: Final = ("free", "min", "low", "high", "spanned", "present", "managed")
_ZONE_FIELD: Final = re.compile(rf"({'|'.join(re.escape(name) for name in _ZONE_FIELDS)})\s+(\d+)")
_PROTECTION: Final = re.compile(r"protection: \(([\d, ]*)\)")
_FILE_LISTS: Final = ("Active(file)", "Inactive(file)")
_CPU_RANGE: Final = re.compile(r"(\d+)(?:-(\d+))?")
_PCP_COUNT: Final = re.compile(r"count:\s+(\d+)")


@dataclass(frozen=True, slots=True)
class ZoneFree:
    """One line of /proc/buddyinfo: free chunks of a zone by order, all migratetypes together."""

    node: int
    zone: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TypeFree:
    """One line of /proc/pagetypeinfo: free chunks of a zone and migratetype by order.

    ``at_least`` holds the orders whose count is a lower bound, because the kernel stopped counting (K23).
    """

    node: int
    zone: str
    migratetype: str
    counts: tuple[int, ...]
    at_least: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ZoneBlocks:
    """One line of the table "Number of blocks type": page blocks of a zone by migratetype."""

    node: int
    zone: str
    blocks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PageTypeInfo:
    """All of /proc/pagetypeinfo; ``block_order`` is the order of a page block (9: 2 MiB)."""

    block_order: int
    free: tuple[TypeFree, ...]
    blocks: tuple[ZoneBlocks, ...]


@dataclass(frozen=True, slots=True)
class Zone:
    """One zone of /proc/zoneinfo. Everything is in pages.

    ``protection[i]`` is what the zone keeps back from requests that prefer the node's zone number i (in the order of
    the file); ``pcp_counts`` are the pages on each CPU's lists; ``start_pfn`` is 0 for a zone without memory.
    """

    node: int
    name: str
    start_pfn: int
    spanned: int
    present: int
    managed: int
    free: int
    min: int
    low: int
    high: int
    protection: tuple[int, ...]
    pcp_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MemInfo:
    """The lines of /proc/meminfo that gmemlab uses, in bytes; ``file_lists`` is Active(file) and Inactive(file) together."""

    total: int
    free: int
    available: int
    file_lists: int = 0


def parse_buddyinfo(text: str, file: str = BUDDYINFO) -> tuple[ZoneFree, ...]:
    """Return the zones of /proc/buddyinfo in the order of the file.

    Raises:
        UsageError: a line is not of that file, or has another number of orders than the first.
    """
    zones: list[ZoneFree] = []
    for number, line in _lines(text):
        match = _ZONE.match(line)
        if match is None:
            _bad(file, number, line, "a line `Node N, zone NAME` with counts")
        counts, _ = _counts(line[match.end() :], file, number, bounds=False)
        if not counts or (zones and len(counts) != len(zones[0].counts)):
            _bad(file, number, line, f"{len(zones[0].counts) if zones else 'at least 1'} counts")
        zones.append(ZoneFree(int(match[1]), match[2], counts))
    if not zones:
        raise UsageError("empty", file=file, allowed="one line for each zone")
    return tuple(zones)


def parse_pagetypeinfo(text: str, file: str = PAGETYPEINFO) -> PageTypeInfo:
    """Return the free chunks by migratetype and the table of block types; further tables (page owner) are left out.

    Raises:
        UsageError: a line is not of that file, has another number of columns than its header, or a table is missing.
    """
    block_order: int | None = None
    orders = 0
    types: list[str] = []
    free: list[TypeFree] = []
    blocks: list[ZoneBlocks] = []
    for number, line in _lines(text):
        if match := _BLOCK_ORDER.match(line):
            block_order = int(match[1])
        elif line.startswith("Free pages count per migrate type at order"):
            orders = len(line.removeprefix("Free pages count per migrate type at order").split())
        elif line.startswith("Number of blocks type"):
            types = line.removeprefix("Number of blocks type").split()
        elif line.startswith("Number of mixed blocks"):
            break
        elif not line.startswith("Pages per block:"):
            if types:
                blocks.append(_block_row(line, types, file, number))
            else:
                free.append(_free_row(line, orders, file, number))
    if block_order is None or not free or not blocks:
        raise UsageError(
            "incomplete", file=file, allowed="the page block order, the free counts and the `Number of blocks` table"
        )
    return PageTypeInfo(block_order, tuple(free), tuple(blocks))


def parse_zoneinfo(text: str, file: str = ZONEINFO) -> tuple[Zone, ...]:
    """Return the zones of /proc/zoneinfo in the order of the file, those without memory included.

    Raises:
        UsageError: a zone lacks one of its fields, or there is none.
    """
    zones: list[Zone] = []
    section: list[tuple[int, str]] = []
    for number, line in _lines(text):
        if _ZONE.match(line):
            if section:
                zones.append(_zone(section, file))
            section = [(number, line)]
        elif section:
            section.append((number, line))
        else:
            _bad(file, number, line, "a line `Node N, zone NAME` first")
    if not section:
        raise UsageError("empty", file=file, allowed="a section for each zone")
    zones.append(_zone(section, file))
    return tuple(zones)


def parse_meminfo(text: str, file: str = MEMINFO) -> MemInfo:
    """Return total, free and available memory in bytes, and that on the lists of the page cache (0 where that is not told).

    Raises:
        UsageError: one of the three lines is missing or is not in kB.
    """
    values: dict[str, int] = {}
    for number, line in _lines(text):
        name, _, rest = line.partition(":")
        if name in ("MemTotal", "MemFree", "MemAvailable", *_FILE_LISTS):
            words = rest.split()
            if len(words) != 2 or not words[0].isdecimal() or words[1] != "kB":
                _bad(file, number, line, f"`{name}: NUMBER kB`")
            values[name] = int(words[0]) * KIB
    for name in ("MemTotal", "MemFree", "MemAvailable"):
        if name not in values:
            raise UsageError("missing", file=file, key=name)
    cached = sum(values.get(name, 0) for name in _FILE_LISTS)
    return MemInfo(values["MemTotal"], values["MemFree"], values["MemAvailable"], cached)


def parse_distances(text: str, file: str) -> tuple[int, ...]:
    """Return a node's distances to all online nodes: a line of numbers.

    Raises:
        UsageError: it is none.
    """
    words = text.split()
    if not words or not all(word.isdecimal() for word in words):
        _bad(file, 1, text.strip(), "a line of numbers")
    return tuple(int(word) for word in words)


def parse_cpulist(text: str, file: str) -> int:
    """Return how many CPUs a list like ``0-3,8`` has; an empty one has none.

    Raises:
        UsageError: it is no such list.
    """
    cpus = 0
    for item in text.strip().split(",") if text.strip() else ():
        match = _CPU_RANGE.fullmatch(item)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            _bad(file, 1, text.strip(), "a list like 0-3,8")
        cpus += int(match[2] or match[1]) - int(match[1]) + 1
    return cpus


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines that are not blank, stripped."""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped:
            yield number, stripped


def _bad(file: str, number: int, line: str, allowed: str) -> NoReturn:
    raise UsageError("unexpected line", file=file, line=number, value=line, allowed=allowed)


def _counts(text: str, file: str, number: int, *, bounds: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the counts of a row, and the positions of those that are marked ``>`` (accepted if ``bounds``)."""
    matches = [_COUNT.fullmatch(word) for word in text.split()]
    counts: list[int] = []
    at_least: list[int] = []
    for position, match in enumerate(matches):
        if match is None or (match[1] and not bounds):
            _bad(file, number, text, "counts" + (", `>` before those that are lower bounds" if bounds else ""))
        counts.append(int(match[2]))
        if match[1]:
            at_least.append(position)
    return tuple(counts), tuple(at_least)


def _free_row(line: str, orders: int, file: str, number: int) -> TypeFree:
    match = re.match(r"Node\s+(\d+), zone\s+(\w+), type\s+(\w+)", line)
    if match is None:
        _bad(file, number, line, "a line `Node N, zone NAME, type TYPE` with counts")
    counts, at_least = _counts(line[match.end() :], file, number, bounds=True)
    if len(counts) != orders:
        _bad(file, number, line, f"{orders} counts, as the header says")
    return TypeFree(int(match[1]), match[2], match[3], counts, at_least)


def _block_row(line: str, types: list[str], file: str, number: int) -> ZoneBlocks:
    match = _ZONE.match(line)
    if match is None:
        _bad(file, number, line, "a line `Node N, zone NAME` with counts")
    counts, _ = _counts(line[match.end() :], file, number, bounds=False)
    if len(counts) != len(types):
        _bad(file, number, line, f"{len(types)} counts, as the header says")
    return ZoneBlocks(int(match[1]), match[2], dict(zip(types, counts, strict=True)))


def _zone(section: list[tuple[int, str]], file: str) -> Zone:
    """Read one zone: its header, then its fields in any order."""
    first, header = section[0]
    head = _ZONE.match(header)
    if head is None:
        _bad(file, first, header, "a line `Node N, zone NAME`")
    fields: dict[str, int] = {}
    protection: tuple[int, ...] = ()
    pcp_counts: list[int] = []
    for _, line in section[1:]:
        if match := _ZONE_FIELD.fullmatch(line):
            fields[_ZONE_FIELDS[match[1]]] = int(match[2])
        elif match := _PROTECTION.fullmatch(line):
            protection = tuple(int(word) for word in match[1].replace(",", " ").split())
        elif match := _PCP_COUNT.fullmatch(line):
            pcp_counts.append(int(match[1]))
    missing = [name for name in _REQUIRED if name not in fields]
    if missing:
        raise UsageError(f"zone {head[2]} of node {head[1]} lacks {', '.join(missing)}", file=file, line=first)
    return Zone(
        node=int(head[1]),
        name=head[2],
        start_pfn=fields.get("start_pfn", 0),
        spanned=fields["spanned"],
        present=fields["present"],
        managed=fields["managed"],
        free=fields["free"],
        min=fields["min"],
        low=fields["low"],
        high=fields["high"],
        protection=protection,
        pcp_counts=tuple(pcp_counts),
    )
