"""Asking the processor for what the next events will touch.

On a large host each event of a page or two waits several times for memory: for the file block, for its page details, for the
frames. The stream says early which these will be, so that the waits overlap with the work on the events before.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, STRUCT_FRAMES
from gmemlab.core.mapping import frame_of
from gmemlab.core.prefetch import prefetch
from gmemlab.core.state import Records, State

# How many events ahead each is asked for, which needs what came before it here.
BLOCKS_AHEAD: Final = 12
DETAILS_AHEAD: Final = 8
HOST_BLOCKS_AHEAD: Final = 6
FRAMES_AHEAD: Final = 4
MOST_PAGES: Final = 64  # of one event
PAGES_OF_A_LINE: Final = 64  # page details in a cache line
ROWS_OF_A_LINE: Final = 8  # pages' frames in a cache line
FRAMES_OF_A_LINE_SHIFT: Final = 2  # log2 of the frames' details in one
FRAMES_OF_A_LINE: Final = 1 << FRAMES_OF_A_LINE_SHIFT


@jit
def row_of(state: State, event: Records, vms: Records, background: NDArray[np.int64]) -> int:
    """Row in `state.file_blocks` of the first page of an event; 0 where it touches none, or only now gets its file."""
    op = int(event.op)
    if op == layout.OP_SAMPLE or op == layout.OP_KHUGEPAGED or op == layout.OP_KCOMPACTD:
        return 0
    file = int(background[-1 - event.vm]) if event.vm < 0 else int(vms[event.vm].file)
    record = state.files[file]
    return int(record.first_block) + int(event.first >> BLOCK_ORDER) if event.first < record.pages else 0


@jit
def first_detail(state: State, event: Records, row: int) -> int:
    """Row in `state.pages` of the first page of an event; 0 where its file block has no details."""
    detail = int(state.file_blocks[row].detail) if row else 0
    return detail * BLOCK_PAGES + int(event.first & (BLOCK_PAGES - 1)) if detail else 0


@jit
def pages_within(event: Records) -> int:
    """Pages of an event in its first file block, as far as they are asked for."""
    return min(int(event.count), MOST_PAGES, BLOCK_PAGES - int(event.first & (BLOCK_PAGES - 1)))


@jit
def ask_for_details(state: State, event: Records, row: int) -> None:
    """Ask for the page details of an event, and for the rows of their frames where those are in use."""
    first = first_detail(state, event, row)
    if first:
        prefetch(state.pages, first)
        if event.op == layout.OP_ACCESS:  # the last one of a block that is private again looks at all of it
            base = first & ~(BLOCK_PAGES - 1)
            for page in range(base, base + BLOCK_PAGES, PAGES_OF_A_LINE):
                prefetch(state.pages, page)
        if state.file_blocks[row].block == 0:
            for page in range(first, first + pages_within(event), ROWS_OF_A_LINE):
                prefetch(state.page_frames, page)


@jit
def pages_with_frames(state: State, event: Records, row: int) -> int:
    """Pages whose frames an event looks at, as far as they are asked for: one that allocates finds none yet."""
    op = int(event.op)
    if op == layout.OP_HOST_ALLOCATE or op == layout.OP_ALLOCATE or first_detail(state, event, row) == 0:
        return 0
    return pages_within(event)


@jit
def ask_for_blocks(state: State, event: Records, row: int) -> None:
    """Ask for the host blocks of an event's frames."""
    block = 0
    for offset in range(pages_with_frames(state, event, row)):
        frame = frame_of(state, row, int(event.first) + offset)
        if frame >> BLOCK_ORDER != block:
            block = frame >> BLOCK_ORDER
            prefetch(state.blocks, block)


@jit
def ask_for_frames(state: State, event: Records, row: int) -> None:
    """Ask for the details of an event's frames, and of those that they merge with when they become free."""
    line = 0
    for offset in range(pages_with_frames(state, event, row)):
        frame = frame_of(state, row, int(event.first) + offset)
        if frame >> FRAMES_OF_A_LINE_SHIFT != line:
            line = frame >> FRAMES_OF_A_LINE_SHIFT
            slot = int(state.blocks[frame >> BLOCK_ORDER].detail) * BLOCK_PAGES + (frame & (BLOCK_PAGES - 1))
            prefetch(state.frames, slot)
            if event.op == layout.OP_HOST_FREE:  # most of what guests free is whole 2M
                prefetch(state.frames, slot ^ FRAMES_OF_A_LINE)
                prefetch(state.frames, slot ^ 2 * FRAMES_OF_A_LINE)


@jit
def ask_for_block_in_order(state: State, row: int) -> None:
    """Ask for the host block that backs a whole file block, and for what is beside them: conversions split it or merge it."""
    block = int(state.file_blocks[row].block)
    prefetch(state.blocks, block)
    prefetch(state.vmemmap, block * STRUCT_FRAMES)
    prefetch(state.hardware, row)


@jit
def ask_for_structs(state: State, event: Records, row: int) -> None:
    """Ask for the page structs' frames that go back where a conversion makes a file block private as a whole."""
    record = state.file_blocks[row]
    if event.op == layout.OP_TO_PRIVATE and record.nr_shared == event.count:
        place = int(record.block) * STRUCT_FRAMES
        end = place + STRUCT_FRAMES
        while place < end and state.vmemmap[place]:
            prefetch(state.frames, int(state.vmemmap[place]))
            place += 1


@jit
def read_ahead(state: State, events: Records, vms: Records, background: NDArray[np.int64], now: int) -> None:
    """Ask for what the events after number `now` will touch: one block, some details, blocks and frames each time."""
    last = len(events) - 1
    event = events[min(now + BLOCKS_AHEAD, last)]
    prefetch(state.file_blocks, row_of(state, event, vms, background))
    event = events[min(now + DETAILS_AHEAD, last)]
    row = row_of(state, event, vms, background)
    ask_for_details(state, event, row)
    if event.op == layout.OP_TO_SHARED or event.op == layout.OP_TO_PRIVATE:
        ask_for_block_in_order(state, row)
    event = events[min(now + HOST_BLOCKS_AHEAD, last)]
    ask_for_blocks(state, event, row_of(state, event, vms, background))
    event = events[min(now + FRAMES_AHEAD, last)]
    row = row_of(state, event, vms, background)
    ask_for_structs(state, event, row)
    ask_for_frames(state, event, row)
