"""What the oracle's long-term pins do first: what lies in CMA, in an isolated block or in ZONE_MOVABLE moves away."""

import errno

from gmemlab.core.layout import BLOCK_PAGES, CMA, ISOLATE, KIND_HUGETLB, UNMOVABLE, ZONE_MOVABLE
from oracle_contig import move_elsewhere
from oracle_effort import KERNEL
from oracle_files import File
from oracle_memory import Memory
from oracle_migrate import split


def is_pinnable(memory: Memory, pfn: int) -> bool:
    """Whether a frame may be pinned for long."""
    zone = memory.buddy.zones[memory.buddy.zone_of(pfn)]
    return memory.buddy.blocktype[pfn // BLOCK_PAGES] not in (CMA, ISOLATE) and zone.kind != ZONE_MOVABLE


def leave_movable(memory: Memory, file: File, first: int, end: int) -> tuple[int, int]:
    """Move the folios of a range that may not be pinned where they are; (errno, how many there were)."""
    found, index = 0, first
    while index < end:
        page = file.pages.get(index)
        if page is None or is_pinnable(memory, page.frame):
            index += 1
            continue
        found += 1
        folio = page.folio
        if folio.huge is not None and file.policy.kind == KIND_HUGETLB:
            return errno.EOPNOTSUPP, found
        if not file.policy.movable or folio.busy():
            return errno.ENOMEM, found
        base, order = folio.index, folio.order
        if move_elsewhere(memory, folio, UNMOVABLE, KERNEL):
            memory.buddy.seen["moved for a pin"] += 1
            index = base + (1 << order)
        elif order:
            split(memory, folio)
            index, end = base, max(end, base + (1 << order))
        else:
            return errno.ENOMEM, found
    return 0, found
