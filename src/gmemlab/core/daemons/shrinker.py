"""The deferred-split shrinker, as reclaim has it run: it frees what huge pages keep in vain (`do_shrink_slab`, 6.18).

Of a node's queue (`split_queue`) it looks at a share that doubles as reclaim finds less, in batches of 128: what is unmapped in
part is split, and whole huge pages that are mostly zeros (max_ptes_none of khugepaged) are, too. What a look leaves undone of
a share is added to the next. All other shrinkers are not modelled: slabs stay.
"""

from gmemlab.core import decisions, layout
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, KIND_ANON, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.mapping import block_row, settle
from gmemlab.core.parts import part
from gmemlab.core.split_queue import ENDS, SHIFT, dequeue_split, enqueue, link_after, link_before
from gmemlab.core.state import State
from gmemlab.core.underused import is_underused, split_unless_held, split_zeros

DEF_PRIORITY = 12  # how little of what there is reclaim looks at first: a share of 2**-12
SHRINK_BATCH = 128
DEFAULT_SEEKS = 2
SHRINK_STOP = -1


@jit
def look_at_anon(state: State, file: int, index: int, pfn: int, partial: bool) -> bool:
    """Split an anonymous folio of the queue, if it is worth it. Whether it was; a held one mapped in part stays last."""
    underused = False
    if not partial:
        underused = is_underused(state, block_row(state, file, index), pfn, int(state.daemons[0].max_ptes_none))
        if not underused:
            return False
    if split_unless_held(state, file, index, pfn, underused):
        settle(state, file, index)
        return True
    if partial:
        dequeue_split(state, pfn)
        enqueue(state, pfn)
    return False


@jit
def look_at_shmem(state: State, file: int, base: int, pfn: int) -> bool:
    """The same for shmem (T4): what is not worth it leaves the queue until more becomes zeros; what is held stays last."""
    zeros = int(state.file_blocks[block_row(state, file, base)].nr_stranded)
    if decisions.is_underused(zeros, int(state.daemons[0].max_ptes_none)):
        if split_zeros(state, file, base):
            return True
        dequeue_split(state, pfn)
        enqueue(state, pfn)
        return False
    dequeue_split(state, pfn)
    return False


@jit
def look_at(state: State, entry: int) -> bool:
    """Look at one folio of the queue. Whether it was split."""
    pfn = entry << SHIFT
    record = state.blocks[pfn >> BLOCK_ORDER]
    if record.kind != WHOLE:
        frame = state.frames[slot_of(state, pfn)]
        return look_at_anon(state, int(frame.owner), int(frame.index), pfn, True)
    file, base = int(record.owner), int(record.index) * BLOCK_PAGES
    if state.files[file].kind == KIND_ANON:
        return look_at_anon(state, file, base, pfn, record.deferred > 0)
    return look_at_shmem(state, file, base, pfn)


@part
def deferred_split_scan(state: State, node: int, nr_to_scan: int) -> int:
    """Look at the first folios of a node's queue, the last of them first. Returns how many were split, or SHRINK_STOP."""
    record = state.nodes[node]
    first = int(record.split_head)
    if first == 0:
        return SHRINK_STOP
    entry = first
    for _ in range(nr_to_scan - 1):
        after = link_after(state, entry)
        if after == ENDS:
            break
        entry = after
    split = 0
    while True:
        before = link_before(state, entry)
        split += 1 if look_at(state, entry) else 0
        if entry == first:
            break
        entry = before
    return SHRINK_STOP if split == 0 and record.split_queue_len == 0 else split


@part
def shrink_slab(state: State, node: int, priority: int) -> None:
    """Look at a node's share of what there is at a priority of reclaim, and at what earlier looks left (`do_shrink_slab`)."""
    record = state.nodes[node]
    freeable = int(record.split_queue_len)
    if freeable == 0:
        return
    deferred = int(record.nr_deferred)
    record.nr_deferred = 0
    delta = (freeable >> priority) * 4 // DEFAULT_SEEKS
    left = min((deferred >> priority) + delta, 2 * freeable)
    before = int(state.tally[layout.TALLY_RELEASED])
    scanned = 0
    while left >= SHRINK_BATCH or left >= freeable:
        count = min(SHRINK_BATCH, left)
        split = deferred_split_scan(state, node, count)
        if split == SHRINK_STOP:
            break
        state.tally[layout.TALLY_DEFERRED_SPLIT] += split
        state.tally[layout.TALLY_SLABS_SCANNED] += count
        left -= count
        scanned += count
    record.nr_deferred = min(max(deferred + delta - scanned, 0), 2 * freeable)
    state.tally[layout.TALLY_DEFERRED_FREED] += state.tally[layout.TALLY_RELEASED] - before
