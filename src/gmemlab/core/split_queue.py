"""The queue of folios that the deferred-split shrinker will look at, one for each node (`pgdat->deferred_split_queue`, 6.18).

On it are anonymous folios of order 2 or more of which a part is unmapped (L16), and whole huge pages that were faulted in or
collapsed and that nobody has looked at yet (L17), in the order in which they came. Order 1 has no room for the links. Where a
policy has shmem looked at, too (T4), its huge pages come to the queue when some of their pages become zeros. A folio leaves the
queue when it is freed or split, and here also where it is orphaned: nothing could split it. Linux has a queue for each cgroup
instead, where there are such; here is none.

An entry is the folio's first frame, shifted by 2. The links of a huge page are in its block; those of a smaller folio are in
its second frame, as in Linux in a tail page, instead of the index, which follows from that of the first. ENDS stands where
there is no neighbour, so that what has no links is not on the queue.
"""

from gmemlab.core import decisions
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, FRAME_DEFERRED, KIND_SHMEM, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.nodes import node_of
from gmemlab.core.state import State

ENDS = -1
SHIFT = 2  # the least order of what is queued


@jit
def link_after(state: State, entry: int) -> int:
    """The entry behind one, or ENDS; 0 where a huge page is not on the queue."""
    block = entry >> (BLOCK_ORDER - SHIFT)
    if state.blocks[block].kind == WHOLE:
        return int(state.blocks[block].next)
    return int(state.frames[slot_of(state, entry << SHIFT) + 1].next)


@jit
def link_before(state: State, entry: int) -> int:
    """The entry before one, or ENDS."""
    block = entry >> (BLOCK_ORDER - SHIFT)
    if state.blocks[block].kind == WHOLE:
        return int(state.blocks[block].prev)
    return int(state.frames[slot_of(state, entry << SHIFT) + 1].prev)


@jit
def set_after(state: State, entry: int, link: int) -> None:
    """Say what is behind an entry."""
    block = entry >> (BLOCK_ORDER - SHIFT)
    if state.blocks[block].kind == WHOLE:
        state.blocks[block].next = link
    else:
        state.frames[slot_of(state, entry << SHIFT) + 1].next = link


@jit
def set_before(state: State, entry: int, link: int) -> None:
    """Say what is before an entry."""
    block = entry >> (BLOCK_ORDER - SHIFT)
    if state.blocks[block].kind == WHOLE:
        state.blocks[block].prev = link
    else:
        state.frames[slot_of(state, entry << SHIFT) + 1].prev = link


@jit
def enqueue(state: State, pfn: int) -> None:
    """Put the folio that starts at a frame, and is not on the queue, at its end (`deferred_split_folio`)."""
    node = state.nodes[node_of(state, pfn >> BLOCK_ORDER)]
    entry = pfn >> SHIFT
    last = int(node.split_tail)
    set_after(state, entry, ENDS)
    set_before(state, entry, last or ENDS)
    if last:
        set_after(state, last, entry)
    else:
        node.split_head = entry
    node.split_tail = entry
    node.split_queue_len += 1


@jit
def dequeue_split(state: State, pfn: int) -> None:
    """Take the folio that starts at a frame off the queue (`__folio_unqueue_deferred_split`)."""
    node = state.nodes[node_of(state, pfn >> BLOCK_ORDER)]
    entry = pfn >> SHIFT
    after, before = link_after(state, entry), link_before(state, entry)
    if before == ENDS:
        node.split_head = after if after != ENDS else 0
    else:
        set_after(state, before, after)
    if after == ENDS:
        node.split_tail = before if before != ENDS else 0
    else:
        set_before(state, after, before)
    node.split_queue_len -= 1
    if state.blocks[pfn >> BLOCK_ORDER].kind == WHOLE:
        state.blocks[pfn >> BLOCK_ORDER].next = 0
        state.blocks[pfn >> BLOCK_ORDER].prev = 0
        return
    slot = slot_of(state, pfn)
    state.frames[slot + 1].index = state.frames[slot].index + 1


@jit
def enqueue_whole(state: State, block: int) -> None:
    """Put a huge page at the end of the queue, where it is not on it."""
    if state.blocks[block].next == 0:
        enqueue(state, block << BLOCK_ORDER)


@jit
def dequeue_whole(state: State, block: int) -> None:
    """Take a huge page off the queue, where it is on it."""
    if state.blocks[block].next:
        dequeue_split(state, block << BLOCK_ORDER)


@jit
def enqueue_zeros(state: State, file: int, row: int) -> None:
    """Pages of a file block became zeros: where the shrinker looks for them in shmem (T4), and it is a huge page, it will."""
    block = int(state.file_blocks[row].block)
    if state.files[file].kind != KIND_SHMEM or block == 0 or state.blocks[block].kind != WHOLE:
        return
    if decisions.looks_for_zeros(state.policies[state.files[file].policy], KIND_SHMEM):
        enqueue_whole(state, block)


@jit
def has_queue(state: State) -> bool:
    """Whether any node has something on its queue."""
    for node in range(int(state.host[0].nr_nodes)):
        if state.nodes[node].split_queue_len:
            return True
    return False


@jit
def is_partial(state: State, slot: int, order: int) -> bool:
    """Whether a part of a folio in a split block, from this frame on, is unmapped."""
    for member in range(slot, slot + (1 << order)):
        if state.frames[member].kind == FRAME_DEFERRED:
            return True
    return False
