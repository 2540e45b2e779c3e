"""What the host looks like when the model starts: zones, free memory, memory in use."""

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.frames import own_block
from gmemlab.core.jit import entry, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    HIGHATOMIC,
    ISOLATE,
    MAX_PAGE_ORDER,
    RESERVED,
    TALLY_PRESENT,
    UNIFORM,
)
from gmemlab.core.lists import count_free, list_index, push_block
from gmemlab.core.mapping import fill_block
from gmemlab.core.operations.punch import punch
from gmemlab.core.state import State


@entry
def set_zone(state: State, zone: int, start: int, end: int, kind: int, reserve: int) -> None:
    """Make blocks [start, end) a zone. Its blocks are reserved until they are freed or given an owner."""
    record = state.zones[zone]
    record.start = start
    record.end = end
    record.kind = kind
    record.reserve = reserve
    record.free = 0
    for block in range(start, end):
        row = state.blocks[block]
        row.kind = RESERVED
        row.migratetype = layout.MOVABLE
        row.zone = zone


@jit
def set_type(state: State, block: int, migratetype: int) -> None:
    """Give a block with nothing free in it a migratetype."""
    record = state.blocks[block]
    record.migratetype = migratetype
    record.origin = layout.MOVABLE if migratetype == ISOLATE else 0
    if migratetype == HIGHATOMIC:
        state.zones[int(record.zone)].reserved_highatomic += BLOCK_PAGES


@entry
def set_types(state: State, first: int, end: int, migratetype: int) -> None:
    """Give the reserved blocks [first, end) a migratetype."""
    for block in range(first, end):
        set_type(state, block, migratetype)


@entry
def free_range(state: State, first: int, end: int) -> None:
    """Free the blocks [first, end) of one zone at boot: largest chunks, to the tails, so that they are taken ascending."""
    block = first
    while block < end:
        record = state.blocks[block]
        order = MAX_PAGE_ORDER if block & 1 == 0 and block + 1 < end else BLOCK_ORDER
        row = list_index(int(record.zone), int(record.migratetype), order)
        push_block(state, row, block, order, True)
        step = 1 << (order - BLOCK_ORDER)
        count_free(state, int(record.zone), int(record.migratetype), step * BLOCK_PAGES)
        block += step


@entry
def occupy(state: State, block: int, file: int, migratetype: int) -> None:
    """Give a reserved block as 512 base pages to a file that is laid out like the machine: page = frame number."""
    set_type(state, block, migratetype)
    own_block(state, block, UNIFORM, 0, file, block)
    fill_block(state, int(state.files[file].first_block) + block, block)
    state.tally[TALLY_PRESENT] += BLOCK_PAGES
    state.tally[layout.TALLY_ALLOCATED] += BLOCK_PAGES


@entry
def punch_each(state: State, file: int, firsts: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """Punch many ranges of one file, in the given order."""
    for step in range(len(firsts)):
        punch(state, file, int(firsts[step]), int(counts[step]))
