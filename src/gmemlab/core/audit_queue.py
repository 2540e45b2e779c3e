"""The invariants of the deferred-split shrinker's queues: what is on them, in one piece, and on that of its node."""

from gmemlab.core import decisions
from gmemlab.core.frames import folio_head, folio_order
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, FRAME_DEFERRED, FRAME_USED, KIND_ANON, SPLIT, UNSEEN, WHOLE
from gmemlab.core.lists import slot_of
from gmemlab.core.nodes import node_of
from gmemlab.core.split_queue import ENDS, SHIFT, is_partial, link_after, link_before
from gmemlab.core.state import State


@jit
def index_in_file(state: State, pfn: int) -> int:
    """Which page of its file a frame of a split block's folio holds, also where links of the queue stand instead."""
    slot = slot_of(state, pfn)
    order = int(state.frames[slot].order)
    head = folio_head(slot, order)
    if slot == head + 1 and order >= SHIFT and is_partial(state, head, order):
        return int(state.frames[head].index) + 1
    return int(state.frames[slot].index)


@jit
def is_due(state: State, block: int) -> int:
    """Whether a huge page is to be looked at: 1 if it must be on the queue, 0 if it must not, -1 if either will do (T4)."""
    record = state.blocks[block]
    file = state.files[record.owner]
    if file.kind == KIND_ANON:
        return 1 if record.deferred or state.file_blocks[file.first_block + record.index].marks & UNSEEN else 0
    return -1 if decisions.looks_for_zeros(state.policies[file.policy], int(file.kind)) else 0


@jit
def count_due(state: State, node: int) -> int:
    """How many folios of a node must be on its queue, or (T4) may be and are; -1 if one is on a queue and must not."""
    count = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        record = state.blocks[block]
        if record.kind == WHOLE:
            queued, due = record.next != 0, is_due(state, block)
            if queued and due == 0:
                return -1
            if node_of(state, block) == node:
                count += 1 if due == 1 or queued else 0
        elif record.kind == SPLIT and node_of(state, block) == node:
            base = int(record.detail) * BLOCK_PAGES
            offset = 0
            while offset < BLOCK_PAGES:
                frame = state.frames[base + offset]
                order = int(frame.order)
                held = frame.kind == FRAME_USED or frame.kind == FRAME_DEFERRED
                count += 1 if held and order >= SHIFT and is_partial(state, base + offset, order) else 0
                offset += 1 << order
    return count


@jit
def audit_queue(state: State, node: int) -> bool:
    """Walk a node's queue: links agree, each entry is the head of a folio of this node that is due, and none is missing."""
    record = state.nodes[node]
    left = count_due(state, node)
    if left != record.split_queue_len or record.nr_deferred < 0:
        return False
    before = ENDS
    entry = int(record.split_head) if record.split_head else ENDS
    while entry != ENDS:
        pfn = entry << SHIFT
        block = pfn >> BLOCK_ORDER
        if left == 0 or node_of(state, block) != node or link_before(state, entry) != before:
            return False
        if state.blocks[block].kind != WHOLE and state.blocks[block].kind != SPLIT:
            return False
        order = folio_order(state, pfn)
        if order < SHIFT or folio_head(pfn, order) != pfn:
            return False
        if order < BLOCK_ORDER and not is_partial(state, slot_of(state, pfn), order):
            return False
        left -= 1
        before = entry
        entry = link_after(state, entry)
    return left == 0 and record.split_tail == (before if before != ENDS else 0)


@jit
def audit_queues(state: State) -> tuple[int, int]:
    """Check the queue of every node."""
    for node in range(int(state.host[0].nr_nodes)):
        if not audit_queue(state, node):
            return 36, node
    return 0, 0
