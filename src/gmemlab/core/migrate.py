"""Folios that are given other frames (mm/migrate.c, 6.18): for compaction, and for runs that are emptied."""

from gmemlab.core import layout
from gmemlab.core.frames import clear_frames, recut, write_frames
from gmemlab.core.hardware.moves import move_block_state, move_page_state, part_huge
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRAME_USED, KIND_ANON, KIND_GUEST_MEMFD
from gmemlab.core.lists import pfn_of, slot_of
from gmemlab.core.mapping import block_row, is_shared, open_details, open_frames
from gmemlab.core.parts import part
from gmemlab.core.split_queue import is_partial
from gmemlab.core.state import State
from gmemlab.core.underused import split_to_pages


@jit
def note_moved(state: State, owner: int, row: int, index: int) -> None:
    """Count a page that was given another frame."""
    state.tally[layout.TALLY_COMPACT_MOVED] += 1
    if state.files[owner].kind == KIND_GUEST_MEMFD and not is_shared(state, row, index):
        state.tally[layout.TALLY_FIRMWARE_COPIES] += 1


@jit
def move_backing(state: State, row: int, source: int, target: int) -> None:
    """Let a file block whose pages lie in one host block, in order, lie in another, which is its file's already."""
    block = state.file_blocks[row]
    owner = int(state.blocks[target].owner)
    move_block_state(state, owner, row, source, target)
    index = int(state.blocks[target].index) << BLOCK_ORDER
    block.block = target
    for offset in range(BLOCK_PAGES):
        note_moved(state, owner, row, index + offset)


@jit
def is_mapped_in_part(state: State, pfn: int, order: int) -> bool:
    """Whether parts of the folio that starts at a frame were unmapped: it is split before it moves (`migrate_pages_batch`)."""
    if order == BLOCK_ORDER:
        return bool(state.blocks[pfn >> BLOCK_ORDER].deferred)
    return is_partial(state, slot_of(state, pfn), order)


@part
def move_frames(state: State, pfn: int, target: int) -> None:
    """Give a folio below order 9 the frames from slot `target` on; its own are nobody's then."""
    source = slot_of(state, pfn)
    frame = state.frames[source]
    order, owner, index = int(frame.order), int(frame.owner), int(frame.index)
    row = block_row(state, owner, index)
    part_huge(state, owner, index)
    details = open_details(state, row) + (index & (BLOCK_PAGES - 1))
    open_frames(state, row)
    new = pfn_of(state, target)
    for offset in range(1 << order):
        move_page_state(state, owner, details + offset, pfn + offset, new + offset)
        state.page_frames[details + offset] = new + offset
        note_moved(state, owner, row, index + offset)
    write_frames(state, target, order, FRAME_USED, owner, index)
    state.blocks[new >> BLOCK_ORDER].nr_movable += 1 << order
    state.blocks[pfn >> BLOCK_ORDER].nr_movable -= 1 << order
    clear_frames(state, source, order)


@jit
def split_source(state: State, pfn: int, order: int) -> None:
    """Split an idle folio for which there is no target of its size, so that its pages move one by one (`try_split_folio`)."""
    frame = state.frames[slot_of(state, pfn)]
    if state.files[frame.owner].kind == KIND_ANON:
        split_to_pages(state, int(frame.owner), int(frame.index), pfn)
    else:
        recut(state, pfn, order, pfn, pfn + (1 << order), False, False)
