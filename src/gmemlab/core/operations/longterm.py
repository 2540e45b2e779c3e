"""Long-term pins (FOLL_LONGTERM): what they hold may lie neither in CMA nor in ZONE_MOVABLE, and moves first (mm/gup.c, 6.18).

Of what is in the way of a move, Linux says so at once or after some tries; here all of it is ENOMEM, as a pin's caller sees.
Not modelled: huge pages of hugetlb memory that would move within their pool (EOPNOTSUPP where one lies there); and that such
a pin would take other pages of a pool than these.
"""

import errno

from gmemlab.core.frames import folio_busy, folio_head, folio_order
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    CMA,
    GFP_DIRECT,
    GFP_KSWAPD,
    ISOLATE,
    KIND_HUGETLB,
    SOURCE_POOL,
    UNMOVABLE,
    ZONE_MOVABLE,
)
from gmemlab.core.mapping import block_row, frame_of
from gmemlab.core.migrate_pages import MOVED, STAYED, leave_frames
from gmemlab.core.parts import part
from gmemlab.core.state import State

GFP_USER = GFP_KSWAPD | GFP_DIRECT


@jit
def is_longterm_pinnable(state: State, pfn: int) -> bool:
    """Whether a frame may be pinned for long (`folio_is_longterm_pinnable`)."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    if record.migratetype == CMA or record.migratetype == ISOLATE:
        return False
    return bool(state.zones[int(record.zone)].kind != ZONE_MOVABLE)


@jit
def may_leave(state: State, file: int, pfn: int) -> int:
    """Whether the folio of a frame may move at all. Returns 0, ENOMEM, or EOPNOTSUPP where the model cannot.

    guest_memfd refuses (G54), also where its pages come from a pool; so does what somebody else holds.
    """
    policy = state.policies[state.files[file].policy]
    if policy.source == SOURCE_POOL and state.files[file].kind == KIND_HUGETLB:
        return errno.EOPNOTSUPP
    return 0 if policy.movable and folio_busy(state, pfn) == 0 else errno.ENOMEM


@part
def leave_movable(state: State, file: int, first: int, end: int) -> tuple[int, int]:
    """Move the folios of [first, end) that may not be pinned where they are (`check_and_migrate_movable_pages`).

    A folio that finds no room as it is moves in pieces, all of it. Returns (errno, folios that were in the wrong place): the
    first that cannot move ends it, and what has moved before stays where it is.
    """
    found = 0
    index = first
    while index < end:
        pfn = frame_of(state, block_row(state, file, index), index)
        if pfn == 0 or is_longterm_pinnable(state, pfn):
            index += 1
            continue
        found += 1
        error = may_leave(state, file, pfn)
        if error:
            return error, found
        order = folio_order(state, pfn)
        base = folio_head(index, order)
        came = leave_frames(state, file, index, pfn, order, UNMOVABLE, GFP_USER)  # nothing is movable during such a pin
        if came == STAYED:
            return errno.ENOMEM, found
        index = base
        if came == MOVED:
            index += 1 << order
        else:
            end = max(end, base + (1 << order))
    return 0, found
