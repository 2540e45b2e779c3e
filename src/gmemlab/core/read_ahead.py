"""Asking the processor for what the next events will touch.

On a large host each event of a page or two waits several times for memory: for the file block, for its page details, for the
frames. The stream says early which these will be, so that the waits overlap with the work on the events before. Each request
waits for its address to be translated, which takes about as long as memory where this itself runs in a virtual machine; those
of a group of events do so together. What is asked for twice is not sorted out: a branch that nobody foresees costs more.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmemlab.core import layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import ASKED_TOGETHER, BLOCK_ORDER, BLOCK_PAGES, ROWS_KEPT, STRUCT_FRAMES
from gmemlab.core.prefetch import prefetch
from gmemlab.core.state import Records, State

MOST_PAGES: Final = 64  # of one event
PAGES_OF_A_LINE: Final = 64  # page details in a cache line
ROWS_OF_A_LINE: Final = 8  # pages' frames in a cache line
FRAMES_OF_A_LINE: Final = 4  # frames' details in one


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
def pages_within(event: Records) -> int:
    """Pages of an event in its first file block, as far as they are asked for."""
    return min(int(event.count), MOST_PAGES, BLOCK_PAGES - int(event.first & (BLOCK_PAGES - 1)))


@jit
def ask_for_details(state: State, event: Records, row: int) -> None:
    """Ask for the page details of an event, and for the rows of their frames where those are in use.

    A conversion splits or merges the host block behind a file block that is in order: it, and what is beside both.
    """
    record = state.file_blocks[row]
    if event.op == layout.OP_TO_SHARED or event.op == layout.OP_TO_PRIVATE:
        prefetch(state.blocks, int(record.block))
        prefetch(state.vmemmap, int(record.block) * STRUCT_FRAMES)
        prefetch(state.hardware, row)
    base = int(record.detail) * BLOCK_PAGES
    if base == 0:
        return
    first = base + int(event.first & (BLOCK_PAGES - 1))
    if event.op == layout.OP_ACCESS:  # the last one of a block that is private again looks at all of it
        for page in range(base, base + BLOCK_PAGES, PAGES_OF_A_LINE):
            prefetch(state.pages, page)
    else:
        prefetch(state.pages, first)
    if record.block == 0:
        for page in range(first, first + pages_within(event), ROWS_OF_A_LINE):
            prefetch(state.page_frames, page)


@jit
def first_frame_row(state: State, event: Records, row: int) -> int:
    """Row in `state.page_frames` of an event's first page; 0 where its pages lie in order, or nobody asks for their frames."""
    op = int(event.op)
    record = state.file_blocks[row]
    if record.block or record.detail == 0 or op == layout.OP_HOST_ALLOCATE or op == layout.OP_ALLOCATE:
        return 0  # what allocates finds none yet
    return int(record.detail) * BLOCK_PAGES + int(event.first & (BLOCK_PAGES - 1))


@jit
def ask_for_blocks(state: State, event: Records, row: int) -> None:
    """Ask for the host blocks of an event's frames."""
    first = first_frame_row(state, event, row)
    if first:
        for place in range(first, first + pages_within(event)):
            prefetch(state.blocks, int(state.page_frames[place]) >> BLOCK_ORDER)


@jit
def ask_for_structs(state: State, record: Records) -> None:
    """Ask for the page structs' frames, and their blocks, that go back where a file block becomes private as a whole."""
    place = int(record.block) * STRUCT_FRAMES
    end = place + STRUCT_FRAMES
    while place < end and state.vmemmap[place]:
        slot = int(state.vmemmap[place])
        prefetch(state.frames, slot)
        prefetch(state.blocks, int(state.frame_slabs[slot >> BLOCK_ORDER].block))
        place += 1


@jit
def ask_for_frames(state: State, event: Records, row: int) -> None:
    """Ask for the details of an event's frames, and of those that they may merge with when they become free."""
    record = state.file_blocks[row]
    if event.op == layout.OP_TO_PRIVATE and record.nr_shared and record.nr_shared == event.count:
        ask_for_structs(state, record)
    first = first_frame_row(state, event, row)
    if first == 0:
        return
    merge = event.op == layout.OP_HOST_FREE  # most of what guests free is whole 2M
    for place in range(first, first + pages_within(event)):
        frame = int(state.page_frames[place])
        slot = int(state.blocks[frame >> BLOCK_ORDER].detail) * BLOCK_PAGES + (frame & (BLOCK_PAGES - 1))
        prefetch(state.frames, slot)
        if merge:
            prefetch(state.frames, slot ^ FRAMES_OF_A_LINE)
            prefetch(state.frames, slot ^ 2 * FRAMES_OF_A_LINE)


@jit
def kept_row(place: Records, number: int) -> int:
    """What `row_of` said of an event that was asked about before."""
    return int(place.rows[number & (ROWS_KEPT - 1)])


@jit
def read_ahead(state: State, events: Records, vms: Records, background: NDArray[np.int64], place: Records) -> None:
    """Ask for what the events after the next ones will touch, a group at a time; each needs what the one before asked for."""
    now = int(place.asked)
    if place.event < now or now + 5 * ASKED_TOGETHER > len(events):
        return
    place.asked = now + ASKED_TOGETHER
    for number in range(now + 4 * ASKED_TOGETHER, now + 5 * ASKED_TOGETHER):
        row = row_of(state, events[number], vms, background)
        prefetch(state.file_blocks, row)
        place.rows[number & (ROWS_KEPT - 1)] = row
    for number in range(now + 3 * ASKED_TOGETHER, now + 4 * ASKED_TOGETHER):
        ask_for_details(state, events[number], kept_row(place, number))
    for number in range(now + 2 * ASKED_TOGETHER, now + 3 * ASKED_TOGETHER):
        ask_for_blocks(state, events[number], kept_row(place, number))
    for number in range(now + ASKED_TOGETHER, now + 2 * ASKED_TOGETHER):
        ask_for_frames(state, events[number], kept_row(place, number))
