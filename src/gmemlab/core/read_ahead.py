"""Asking the processor for what the next events will touch.

On a large host each event of a page or two waits several times for memory: for the file block, for its page details, for the
frames. The stream says early which these will be, so that the waits overlap with the work on the events before.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES
from gmemlab.core.page_details import frame_at
from gmemlab.core.prefetch import prefetch
from gmemlab.core.state import Records, State

# How many events ahead each is asked for, which needs what came before it here.
BLOCKS_AHEAD: Final = 12
DETAILS_AHEAD: Final = 8
HOST_BLOCKS_AHEAD: Final = 6
FRAMES_AHEAD: Final = 4
CHAINS_AHEAD: Final = 8  # of page structs' frames
STRUCTS_AHEAD: Final = 4
MOST_PAGES: Final = 64  # of one event
PAGES_OF_A_LINE: Final = 8  # page details in a cache line
FRAMES_OF_A_LINE_SHIFT: Final = 2  # log2 of the frames' details in one


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
def first_frame_user(state: State, event: Records, vms: Records, background: NDArray[np.int64]) -> int:
    """`first_detail` of an event that looks at its pages' frames: one that allocates finds none yet."""
    op = int(event.op)
    if op == layout.OP_HOST_ALLOCATE or op == layout.OP_ALLOCATE:
        return 0
    return first_detail(state, event, row_of(state, event, vms, background))


@jit
def pages_within(event: Records) -> int:
    """Pages of an event in its first file block, as far as they are asked for."""
    return min(int(event.count), MOST_PAGES, BLOCK_PAGES - int(event.first & (BLOCK_PAGES - 1)))


@jit
def block_to_merge(state: State, event: Records, vms: Records, background: NDArray[np.int64]) -> int:
    """Block of the host that an event may make whole again, whose page structs' frames go back then; or 0."""
    if event.op != layout.OP_TO_PRIVATE:
        return 0
    record = state.file_blocks[row_of(state, event, vms, background)]
    return int(record.block) if record.nr_shared == event.count else 0


@jit
def read_ahead(state: State, events: Records, vms: Records, background: NDArray[np.int64], now: int) -> None:
    """Ask for what the events after number `now` will touch: one block, some details, blocks and frames each time."""
    last = len(events) - 1
    event = events[min(now + BLOCKS_AHEAD, last)]
    prefetch(state.file_blocks, row_of(state, event, vms, background))
    event = events[min(now + DETAILS_AHEAD, last)]
    first = first_detail(state, event, row_of(state, event, vms, background))
    if first:
        for page in range(first, first + pages_within(event), PAGES_OF_A_LINE):
            prefetch(state.pages, page)
    event = events[min(now + HOST_BLOCKS_AHEAD, last)]
    first = first_frame_user(state, event, vms, background)
    if first:
        block = 0
        for page in range(first, first + pages_within(event)):
            if frame_at(state, page) >> BLOCK_ORDER != block:
                block = frame_at(state, page) >> BLOCK_ORDER
                prefetch(state.blocks, block)
    event = events[min(now + CHAINS_AHEAD, last)]
    prefetch(state.vmemmap, block_to_merge(state, event, vms, background))
    block = block_to_merge(state, events[min(now + STRUCTS_AHEAD, last)], vms, background)
    if block:
        prefetch(state.frames, int(state.vmemmap[block]))
    event = events[min(now + FRAMES_AHEAD, last)]
    first = first_frame_user(state, event, vms, background)
    if first:
        line = 0
        for page in range(first, first + pages_within(event)):
            frame = frame_at(state, page)
            if frame >> FRAMES_OF_A_LINE_SHIFT != line:
                line = frame >> FRAMES_OF_A_LINE_SHIFT
                detail = int(state.blocks[frame >> BLOCK_ORDER].detail)
                prefetch(state.frames, detail * BLOCK_PAGES + (frame & (BLOCK_PAGES - 1)))
