"""A guest's memory layout: the memslots that tie guest addresses to offsets of its file (K10).

Everything is counted in 4 KiB pages; a *gfn* is a guest frame number, a *page* an index into the guest's file.
"""

from dataclasses import dataclass
from typing import Any, Final

from gmemlab.core.layout import MAX_SLOTS, PAGE_SIZE
from gmemlab.errors import UsageError
from gmemlab.units import format_size

Ranges = tuple[tuple[int, int], ...]  # page ranges [start, end), ascending, apart from each other

HOLE_START: Final = 0xA0  # 640 KiB: the VGA window and option ROMs, which the VMM backs by other memory
HOLE_END: Final = 0xC0  # 768 KiB
LOW_WHOLE: Final = 0xB0000  # 2.75 GiB: a smaller guest has all its memory below 4 GiB (QEMU, hw/i386/pc_q35.c)
LOW_SPLIT: Final = 0x80000  # 2 GiB: low memory of any other guest
HIGH_START: Final = 0x100000  # 4 GiB


@dataclass(frozen=True)
class Slot:
    """One memslot: guest frames [gfn, gfn + count) are the file's pages [offset, offset + count)."""

    gfn: int
    count: int
    offset: int


@dataclass(frozen=True)
class MemoryLayout:
    """The memslots of a guest.

    Attributes:
        pages: size of the guest's file.
        low: pages of the file below 4 GiB of guest memory; there gfn and page are the same number.
        slots: the memslots by ascending gfn.
    """

    pages: int
    low: int
    slots: tuple[Slot, ...]

    @property
    def memory(self) -> Ranges:
        """Return the file's pages that are in some memslot."""
        return tuple((slot.offset, slot.offset + slot.count) for slot in self.slots)

    def fill(self, record: Any) -> None:
        """Write the layout into a record of the GUEST table."""
        if len(self.slots) > MAX_SLOTS:
            raise ValueError(f"{len(self.slots)} memslots, at most {MAX_SLOTS}")
        record["pages"] = self.pages
        for index, slot in enumerate(self.slots):
            record["slot_gfn"][index] = slot.gfn
            record["slot_count"][index] = slot.count
            record["slot_offset"][index] = slot.offset


def q35(pages: int) -> MemoryLayout:
    """Return the layout of QEMU's q35 machine: legacy hole, and a PCI hole if the guest has 2.75 GiB or more.

    The file's offsets equal the gfns in low memory, so that the 32 pages of the legacy hole are in the file and in no
    slot; high memory follows low memory in the file. QEMU's own limit with other options may differ.
    """
    if pages <= HOLE_END:
        raise ValueError(f"{pages} pages are too few for a q35 guest")
    low = pages if pages < LOW_WHOLE else LOW_SPLIT
    slots = [Slot(0, HOLE_START, 0), Slot(HOLE_END, low - HOLE_END, HOLE_END)]
    if pages > low:
        slots.append(Slot(HIGH_START, pages - low, low))
    return MemoryLayout(pages, low, tuple(slots))


def flat(pages: int) -> MemoryLayout:
    """Return one memslot without holes."""
    if pages <= 0:
        raise ValueError(f"{pages} pages are too few for a guest")
    return MemoryLayout(pages, min(pages, HIGH_START), (Slot(0, pages, 0),))


def gfn_to_page(layout: MemoryLayout, gfn: int) -> int:
    """Return the file's page behind a guest frame.

    Raises:
        UsageError: no memslot holds the guest frame.
    """
    for slot in layout.slots:
        if slot.gfn <= gfn < slot.gfn + slot.count:
            return gfn - slot.gfn + slot.offset
    held = ", ".join(f"{slot.gfn:#x} to {slot.gfn + slot.count - 1:#x}" for slot in layout.slots)
    size = format_size(layout.pages * PAGE_SIZE)
    raise UsageError(f"no memory there in a guest of {size}", key="gfn", value=hex(gfn), allowed=held)


def subtract(ranges: Ranges, start: int, end: int) -> Ranges:
    """Return the ranges without the pages [start, end)."""
    pieces = [piece for low, high in ranges for piece in ((low, min(high, start)), (max(low, end), high))]
    return tuple((low, high) for low, high in pieces if low < high) if start < end else ranges


def take(ranges: Ranges, pages: int) -> tuple[Ranges, Ranges]:
    """Return the first `pages` pages of the ranges, and the rest."""
    taken: list[tuple[int, int]] = []
    left: list[tuple[int, int]] = []
    for low, high in ranges:
        cut = min(high, low + max(pages, 0))
        pages -= cut - low
        taken.append((low, cut))
        left.append((cut, high))
    return _without_empty(taken), _without_empty(left)


def aligned(ranges: Ranges, unit: int) -> tuple[Ranges, Ranges]:
    """Return what of the ranges lies in whole aligned units of that many pages, and what does not."""
    whole = _without_empty([(-(-low // unit) * unit, high // unit * unit) for low, high in ranges])
    rest = ranges
    for low, high in whole:
        rest = subtract(rest, low, high)
    return whole, rest


def total(ranges: Ranges) -> int:
    """Return how many pages the ranges hold."""
    return sum(high - low for low, high in ranges)


def _without_empty(ranges: list[tuple[int, int]]) -> Ranges:
    return tuple((low, high) for low, high in ranges if low < high)
