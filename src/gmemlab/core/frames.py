"""Who holds which frames: folios of files, orphans, and the shape of their blocks (whole, uniform, split).

A folio is named by its first frame. Its order follows from its block: 18 for a part of a 1 GiB folio, 9 for a whole block,
0 in a uniform one, and what the frame details say in a split one.
"""

from gmemlab.core import layout
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_DEFERRED,
    FRAME_ORPHAN,
    FRAME_USED,
    GIGA_BLOCKS,
    GIGA_ORDER,
    ORPHAN,
    SPLIT,
    UNIFORM,
    WHOLE,
)
from gmemlab.core.lists import drop_frame_slab, slot_of, take_frame_slab
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.split_queue import SHIFT, dequeue_split, dequeue_whole, enqueue, enqueue_whole
from gmemlab.core.state import State


@jit
def folio_order(state: State, pfn: int) -> int:
    """Order of the folio that holds a used frame."""
    record = state.blocks[pfn >> BLOCK_ORDER]
    if record.kind == SPLIT:
        return int(state.frames[slot_of(state, pfn)].order)
    if record.kind == UNIFORM:
        return 0
    return int(record.order)


@jit
def folio_head(pfn: int, order: int) -> int:
    """First frame of the folio of this order around a frame."""
    return pfn & ~((1 << order) - 1)


@jit
def folio_busy(state: State, pfn: int) -> int:
    """Pins and references on the folio that holds a frame."""
    block = pfn >> BLOCK_ORDER
    record = state.blocks[block]
    if record.kind == UNIFORM:
        return 0
    if record.kind == SPLIT:
        slot = slot_of(state, pfn)
        return int(state.frames[folio_head(slot, int(state.frames[slot].order))].busy)
    if record.order == GIGA_ORDER:
        return int(state.blocks[block & ~(GIGA_BLOCKS - 1)].busy)
    return int(record.busy)


@jit
def write_frames(state: State, slot: int, order: int, kind: int, owner: int, index: int) -> None:
    """Fill the details of the frames of one folio below order 9."""
    for offset in range(1 << order):
        frame = state.frames[slot + offset]
        frame.index = index + offset
        frame.owner = owner
        frame.order = order
        frame.kind = kind
        frame.busy = 0


@jit
def own_block(state: State, block: int, kind: int, order: int, owner: int, index: int) -> None:
    """Make a block without details part of a file; `index` counts blocks of the file."""
    record = state.blocks[block]
    record.kind = kind
    record.order = order
    record.owner = owner
    record.index = index
    record.busy = 0
    record.deferred = 0


@jit
def own_folio(state: State, pfn: int, order: int, owner: int, index: int) -> None:
    """Give an allocated chunk of order 9 or less to page `index` of a file."""
    block = pfn >> BLOCK_ORDER
    if order == BLOCK_ORDER:
        own_block(state, block, WHOLE, BLOCK_ORDER, owner, index >> BLOCK_ORDER)
        return
    write_frames(state, slot_of(state, pfn), order, FRAME_USED, owner, index)
    if state.policies[state.files[owner].policy].movable:
        state.blocks[block].nr_movable += 1 << order


@jit
def clear_frames(state: State, slot: int, order: int) -> None:
    """Zero the details of 2**order frames."""
    for offset in range(1 << order):
        frame = state.frames[slot + offset]
        frame.index = 0
        frame.owner = 0
        frame.order = 0
        frame.kind = 0
        frame.busy = 0


@jit
def open_block(state: State, block: int) -> None:
    """Turn a uniform block into a split one with the same 512 base pages."""
    record = state.blocks[block]
    owner = int(record.owner)
    first = int(record.index) << BLOCK_ORDER
    slab = take_frame_slab(state, block)
    if slab == 0:
        return
    base = slab * BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        frame = state.frames[base + offset]
        frame.index = first + offset
        frame.owner = owner
        frame.kind = FRAME_USED
    record.kind = SPLIT
    record.order = 0
    record.nr_free = 0
    record.nr_movable = BLOCK_PAGES if state.policies[state.files[owner].policy].movable else 0


@jit
def settle_block(state: State, block: int) -> None:
    """Turn a split block back into a uniform one, where its frames are 512 idle base pages of one file in order."""
    record = state.blocks[block]
    if record.kind != SPLIT or record.nr_free:
        return
    base = int(record.detail) * BLOCK_PAGES
    owner = int(state.frames[base].owner)
    first = int(state.frames[base].index)
    if first & (BLOCK_PAGES - 1):
        return
    for offset in range(BLOCK_PAGES):
        frame = state.frames[base + offset]
        if frame.kind != FRAME_USED or frame.order or frame.busy or frame.owner != owner:
            return
        if frame.index != first + offset:
            return
    clear_frames(state, base, BLOCK_ORDER)
    drop_frame_slab(state, block)
    own_block(state, block, UNIFORM, 0, owner, first >> BLOCK_ORDER)


@jit
def open_whole(state: State, block: int, owner: int, index: int) -> None:
    """Give a whole block frame details, still as one folio of order 9; `index` counts pages of the file."""
    record = state.blocks[block]
    slab = take_frame_slab(state, block)
    if slab == 0:
        return
    record.kind = SPLIT
    record.order = 0
    record.nr_free = 0
    record.nr_movable = BLOCK_PAGES if state.policies[state.files[owner].policy].movable else 0
    write_frames(state, slab * BLOCK_PAGES, BLOCK_ORDER, FRAME_USED, owner, index)


@jit
def cut_around(state: State, at: int) -> None:
    """Halve the idle folio around frame slot `at`, and the half that holds it, until it stands alone (`folio_split`, L13)."""
    order = int(state.frames[at].order)
    base = folio_head(at, order)
    while order > 0:
        order -= 1
        half = 1 << order
        other = base + half if at < base + half else base
        for step in range(half):
            state.frames[other + step].order = order
        if other == base:
            base += half
    state.frames[at].order = 0


@part
def recut(state: State, head: int, order: int, begin: int, end: int, keep_around: bool, keep_within: bool) -> None:
    """Split an idle folio of a split block for the sake of its frames [begin, end).

    With `keep_around`, what lies outside of them is left in the pieces that `truncate_inode_partial_folio` makes in 6.18: the
    folio is split around `begin`, then the piece that holds `end` around that, also where `end` is a border of pieces already.
    With `keep_within`, what lies inside is, too. All else becomes base pages.
    """
    slot = slot_of(state, head)
    first, after = slot + begin - head, slot + end - head
    state.tally[layout.TALLY_PRESENT + order] -= 1 << order
    if keep_around:
        cut_around(state, first)
        if after < slot + (1 << order):
            cut_around(state, after)
    for frame in range(slot, slot + (1 << order)):
        if not (keep_within if first <= frame < after else keep_around):
            state.frames[frame].order = 0
        state.tally[layout.TALLY_PRESENT + int(state.frames[frame].order)] += 1


@jit
def add_busy(state: State, pfn: int, pages: int) -> None:
    """Count `pages` more (or fewer) pins or references on the folio that holds a frame. Uniform blocks open for it."""
    block = pfn >> BLOCK_ORDER
    if state.blocks[block].kind == UNIFORM:
        open_block(state, block)
    record = state.blocks[block]
    if record.kind == SPLIT:
        slot = slot_of(state, pfn)
        state.frames[folio_head(slot, int(state.frames[slot].order))].busy += pages
    elif record.order == GIGA_ORDER:
        state.blocks[block & ~(GIGA_BLOCKS - 1)].busy += pages
    else:
        record.busy += pages


@jit
def free_folio(state: State, pfn: int, order: int) -> None:
    """Free an idle folio below order 10 to the buddy allocator."""
    block = pfn >> BLOCK_ORDER
    if order == BLOCK_ORDER:
        free_pages(state, pfn, order)
        return
    if state.blocks[block].kind == UNIFORM:
        open_block(state, block)
    slot = slot_of(state, pfn)
    frame = state.frames[slot]
    if frame.owner and state.policies[state.files[frame.owner].policy].movable:
        state.blocks[block].nr_movable -= 1 << order
    clear_frames(state, slot, order)
    free_pages(state, pfn, order)


@jit
def orphan_folio(state: State, pfn: int, order: int) -> None:
    """Take a busy folio below order 10 out of its file; `drop_orphan` frees it when the last pin goes."""
    state.tally[layout.TALLY_ORPHANED_PAGES] += 1 << order
    block = pfn >> BLOCK_ORDER
    record = state.blocks[block]
    if order == BLOCK_ORDER:
        if state.files[record.owner].guest != layout.GUEST_SNP:
            record.assigned = 0  # where unmapped pages were counted
        record.kind = ORPHAN
        record.owner = 0
        record.index = 0
        return
    slot = slot_of(state, pfn)
    owner = int(state.frames[slot].owner)
    if state.policies[state.files[owner].policy].movable:
        record.nr_movable -= 1 << order
    assigned = int(state.frames[slot].index) if state.files[owner].guest == layout.GUEST_SNP else 0  # `rmp.leave` put it there
    for offset in range(1 << order):
        frame = state.frames[slot + offset]
        frame.kind = FRAME_ORPHAN
        frame.owner = 0
        frame.index = 0
    state.frames[slot].index = assigned


@part
def defer_page(state: State, pfn: int) -> None:
    """Unmap one page of an anonymous folio: the folio is freed only when all its pages are unmapped (L16).

    The first one puts it on the queue of what is to be split.
    """
    block = pfn >> BLOCK_ORDER
    record = state.blocks[block]
    state.tally[layout.TALLY_DEFERRED] += 1
    if record.kind == WHOLE:
        record.deferred += 1
        enqueue_whole(state, block)
        if record.deferred == BLOCK_PAGES:
            state.tally[layout.TALLY_DEFERRED] -= BLOCK_PAGES
            leave_folio(state, pfn, BLOCK_ORDER)
        return
    slot = slot_of(state, pfn)
    order = int(state.frames[slot].order)
    state.frames[slot].kind = FRAME_DEFERRED
    head = folio_head(slot, order)
    mapped = 0
    for member in range(head, head + (1 << order)):
        mapped += 1 if state.frames[member].kind != FRAME_DEFERRED else 0
    if mapped == (1 << order) - 1 and order >= SHIFT:
        enqueue(state, folio_head(pfn, order))
    if mapped:
        return
    if order >= SHIFT:
        dequeue_split(state, folio_head(pfn, order))
    state.tally[layout.TALLY_DEFERRED] -= 1 << order
    leave_folio(state, folio_head(pfn, order), order)


@inline
def leave_base_pages(state: State, pfn: int, order: int, movable: bool) -> None:
    """`leave_folio` for 2**order base pages in the frames of one aligned chunk of a split block: idle ones, or a single one.

    One after the other they would merge to this chunk, and what they leave on the free lists meanwhile would be gone.
    """
    record = state.blocks[pfn >> BLOCK_ORDER]
    slot = int(record.detail) * BLOCK_PAGES + (pfn & (BLOCK_PAGES - 1))
    state.tally[layout.TALLY_RELEASED] += 1 << order
    if state.frames[slot].busy:
        orphan_folio(state, pfn, 0)
        return
    if movable:
        record.nr_movable -= 1 << order
    for offset in range(1 << order):
        frame = state.frames[slot + offset]
        frame.index = 0
        frame.owner = 0
        frame.kind = 0
    free_pages(state, pfn, order)


@part
def leave_folio(state: State, pfn: int, order: int) -> None:
    """A folio below order 10 leaves its file: freed at once, or orphaned while busy (G24)."""
    state.tally[layout.TALLY_RELEASED + order] += 1
    if order == BLOCK_ORDER:
        dequeue_whole(state, pfn >> BLOCK_ORDER)
    if folio_busy(state, pfn):
        orphan_folio(state, pfn, order)
    else:
        free_folio(state, pfn, order)
