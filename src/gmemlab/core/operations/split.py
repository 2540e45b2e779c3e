"""Splitting folios, and merging the pieces of a huge page again."""

from gmemlab.core import decisions, layout
from gmemlab.core.frames import clear_frames, folio_busy, folio_head, open_whole, own_block, recut
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    GIGA,
    GIGA_BLOCKS,
    GIGA_ORDER,
    SPLIT,
    TALLY_PRESENT,
    UNIFORM,
    WHOLE,
)
from gmemlab.core.lists import drop_frame_slab, slot_of
from gmemlab.core.mapping import block_row, contiguous_block, frame_of
from gmemlab.core.parts import part
from gmemlab.core.pools import pool_of
from gmemlab.core.split_queue import dequeue_whole
from gmemlab.core.state import State
from gmemlab.core.vmemmap import SAVED_FRAMES, has_structs, release_structs, restore, spare_frames


@jit
def uses_hvo(state: State, file: int) -> bool:
    """Whether the file's huge pages gave their page structs back, so that a split must restore them (G74)."""
    policy = state.policies[state.files[file].policy]
    return bool(policy.source == layout.SOURCE_POOL and state.pools[pool_of(int(policy.unit))].hvo and has_structs(state))


@jit
def split_block(state: State, file: int, index: int, cause: int) -> bool:
    """Split the 2 MiB folio around page `index` of a unit file into base pages; False if page structs cannot be had."""
    block = int(state.file_blocks[block_row(state, file, index)].block)
    if uses_hvo(state, file) and not restore(state, block, BLOCK_ORDER, 0):
        return False
    own_block(state, block, UNIFORM, 0, file, index >> BLOCK_ORDER)
    state.tally[TALLY_PRESENT + BLOCK_ORDER] -= BLOCK_PAGES
    state.tally[TALLY_PRESENT] += BLOCK_PAGES
    state.tally[layout.TALLY_SPLIT_2M + cause] += 1
    return True


@jit
def split_giga(state: State, file: int, base: int, cause: int) -> bool:
    """Split the 1 GiB folio at page `base`, to 2 MiB folios or straight to base pages as the policy says."""
    block = int(state.file_blocks[block_row(state, file, base)].block)
    to_blocks = decisions.splits_giga_to_blocks(state.policies[state.files[file].policy])
    if uses_hvo(state, file) and not restore(state, block, GIGA_ORDER, SAVED_FRAMES if to_blocks else 0):
        return False
    kind = WHOLE if to_blocks else UNIFORM
    order = BLOCK_ORDER if to_blocks else 0
    for step in range(GIGA_BLOCKS):
        own_block(state, block + step, kind, order, file, (base >> BLOCK_ORDER) + step)
    state.tally[TALLY_PRESENT + GIGA_ORDER] -= 1 << GIGA_ORDER
    state.tally[TALLY_PRESENT + order] += 1 << GIGA_ORDER
    state.tally[layout.TALLY_SPLIT_1G + cause] += 1
    return True


@part
def split_unit(state: State, file: int, begin: int, end: int, order: int, only_shared: bool, cause: int) -> bool:
    """Split what must be split so that no page of [begin, end), within one huge page, is in a huge folio.

    With `only_shared`, blocks without shared pages may stay whole where the policy splits 1 GiB to 2 MiB first. False if
    page structs cannot be had; what was split before stays so.
    """
    row = block_row(state, file, begin)
    host_block = int(state.file_blocks[row].block)
    if state.blocks[host_block].kind == GIGA and not split_giga(state, file, folio_head(begin, order), cause):
        return False
    index = begin & ~(BLOCK_PAGES - 1)
    while index < end:
        row = block_row(state, file, index)
        block = state.file_blocks[row]
        if state.blocks[block.block].kind == WHOLE and (block.nr_shared or not only_shared):
            if not split_block(state, file, index, cause):
                return False
        index += BLOCK_PAGES
    return True


@part
def split_folio(state: State, file: int, index: int, begin: int, end: int, cause: int) -> None:
    """Split the idle folio of order 9 or less around page `index` so that no folio holds pages of [begin, end) and others.

    These become base pages, unless they are about to leave in the pieces that the policy's split makes.
    """
    pfn = frame_of(state, block_row(state, file, index), index)
    block = pfn >> BLOCK_ORDER
    keep = decisions.keeps_pieces(state.policies[state.files[file].policy])
    if state.blocks[block].kind == WHOLE:
        state.tally[layout.TALLY_SPLIT_2M + cause] += 1
        dequeue_whole(state, block)
        if not keep:
            own_block(state, block, UNIFORM, 0, file, index >> BLOCK_ORDER)
            state.tally[TALLY_PRESENT + BLOCK_ORDER] -= BLOCK_PAGES
            state.tally[TALLY_PRESENT] += BLOCK_PAGES
            return
        open_whole(state, block, file, index & ~(BLOCK_PAGES - 1))
        order = BLOCK_ORDER
    else:
        order = int(state.frames[slot_of(state, pfn)].order)
    leaves = keep and cause == layout.CAUSE_PUNCH
    recut(state, folio_head(pfn, order), order, pfn + begin - index, pfn + end - index, keep, leaves)


@jit
def block_is_busy(state: State, block: int) -> bool:
    """Whether any folio in a host block has pins or references."""
    if state.blocks[block].kind != SPLIT:
        return folio_busy(state, block << BLOCK_ORDER) > 0
    base = int(state.blocks[block].detail) * BLOCK_PAGES
    for slot in range(base, base + BLOCK_PAGES):
        if state.frames[slot].busy:
            return True
    return False


@jit
def make_whole(state: State, file: int, row: int, block: int) -> None:
    """Turn the 512 idle pages of a file block, which lie in order in one host block, into one folio."""
    record = state.blocks[block]
    if record.kind == SPLIT:
        base = int(record.detail) * BLOCK_PAGES
        offset = 0
        while offset < BLOCK_PAGES:
            order = int(state.frames[base + offset].order)
            state.tally[TALLY_PRESENT + order] -= 1 << order
            offset += 1 << order
        clear_frames(state, base, BLOCK_ORDER)
        drop_frame_slab(state, block)
    else:
        state.tally[TALLY_PRESENT + int(record.order)] -= BLOCK_PAGES
    own_block(state, block, WHOLE, BLOCK_ORDER, file, row - int(state.files[file].first_block))
    state.file_blocks[row].block = block
    state.tally[TALLY_PRESENT + BLOCK_ORDER] += BLOCK_PAGES


@jit
def merge_block(state: State, file: int, index: int, cause: int) -> bool:
    """Merge the 2 MiB around page `index`, if its pages are all private, idle, and in order in one host block."""
    row = block_row(state, file, index)
    record = state.file_blocks[row]
    if record.nr_shared or record.nr_present != BLOCK_PAGES:
        return False
    block = contiguous_block(state, row)
    if block == 0 or state.blocks[block].kind == WHOLE or block_is_busy(state, block):
        return False
    make_whole(state, file, row, block)
    if uses_hvo(state, file):
        release_structs(state, block, SAVED_FRAMES)
    state.tally[layout.TALLY_HEALED_BACKING + cause] += 1
    return True


@jit
def giga_may_merge(state: State, row: int) -> bool:
    """Whether the split 1 GiB page at a file block is all private and idle."""
    for step in range(GIGA_BLOCKS):
        record = state.file_blocks[row + step]
        if record.nr_shared or record.nr_present != BLOCK_PAGES or block_is_busy(state, int(record.block)):
            return False
    return True


@jit
def make_giga(state: State, file: int, base: int) -> None:
    """Turn the idle pieces of a split 1 GiB page, at page `base`, into one folio; HVO's frames go back."""
    row = block_row(state, file, base)
    first = int(state.file_blocks[row].block)
    for step in range(GIGA_BLOCKS):
        block = first + step
        if state.blocks[block].kind != WHOLE:
            make_whole(state, file, row + step, block)
        own_block(state, block, GIGA, GIGA_ORDER, file, (base >> BLOCK_ORDER) + step)
        if uses_hvo(state, file):
            release_structs(state, block, spare_frames(block, first))
    state.tally[TALLY_PRESENT + BLOCK_ORDER] -= 1 << GIGA_ORDER
    state.tally[TALLY_PRESENT + GIGA_ORDER] += 1 << GIGA_ORDER


@jit
def merge_giga(state: State, file: int, base: int, cause: int) -> bool:
    """Merge the split 1 GiB page at page `base`, if all of it is private and idle."""
    row = block_row(state, file, base)
    if state.file_blocks[row].nr_present == 0 or state.blocks[state.file_blocks[row].block].kind == GIGA:
        return False
    if not giga_may_merge(state, row):
        return False
    make_giga(state, file, base)
    state.tally[layout.TALLY_HEALED_BACKING + cause] += 1
    return True


@part
def join_unit(state: State, file: int, base: int, order: int) -> None:
    """Make an idle huge page of a unit file one folio again, whatever of it was split."""
    row = block_row(state, file, base)
    block = int(state.file_blocks[row].block)
    if state.blocks[block].order == order:
        return
    if order == GIGA_ORDER:
        make_giga(state, file, base)
        return
    make_whole(state, file, row, block)
    if uses_hvo(state, file):
        release_structs(state, block, SAVED_FRAMES)
