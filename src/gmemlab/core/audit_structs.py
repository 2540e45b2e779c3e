"""The invariants of page structs: eight frames for each block, but what HVO gave back for the pages of pools."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_RESERVED,
    FRAME_VMEMMAP,
    FREE,
    POOL,
    RESERVED,
    SPLIT,
    STRUCT_FRAMES,
)
from gmemlab.core.lists import slot_of
from gmemlab.core.nodes import node_of
from gmemlab.core.pools import pool_of
from gmemlab.core.state import State
from gmemlab.core.vmemmap import has_structs, nr_restored


@jit
def boot_frames(state: State, block: int) -> int:
    """How many frames of a block's page structs are still where boot put them."""
    start = int(state.nodes[node_of(state, block)].struct_frame) + STRUCT_FRAMES * block
    found = 0
    for pfn in range(start, start + STRUCT_FRAMES):
        kind = int(state.blocks[pfn >> BLOCK_ORDER].kind)
        if kind == RESERVED or (kind == SPLIT and state.frames[slot_of(state, pfn)].kind == FRAME_RESERVED):
            found += 1
    return found


@jit
def wanted_frames(state: State, block: int) -> int:
    """How many frames the page structs of a free block, or of one of an idle huge page, have; -1 for other blocks."""
    record = state.blocks[block]
    order = int(record.order)
    if record.kind == FREE:
        return STRUCT_FRAMES
    if record.kind != POOL:
        return -1
    if state.pools[pool_of(order)].hvo == 0:
        return STRUCT_FRAMES
    return 1 if block & ((1 << (order - BLOCK_ORDER)) - 1) == 0 else 0


@jit
def audit_structs(state: State) -> tuple[int, int]:
    """Hold the frames that blocks name against the frames, and count those of free blocks and of idle huge pages."""
    if not has_structs(state):
        return 0, 0
    named = 0
    listed = 0
    for block in range(1, int(state.host[0].nr_blocks) + 1):
        restored = nr_restored(state, block)
        for k in range(STRUCT_FRAMES):
            slot = int(state.vmemmap[block * STRUCT_FRAMES + k])
            frame = state.frames[slot]
            if (slot > 0) != (k < restored) or (slot and (frame.kind != FRAME_VMEMMAP or frame.index != block)):
                return 37, block
        named += restored
        wanted = wanted_frames(state, block)
        if wanted >= 0 and restored + boot_frames(state, block) != wanted:
            return 37, block
        if state.blocks[block].kind == SPLIT:
            base = int(state.blocks[block].detail) * BLOCK_PAGES
            for slot in range(base, base + BLOCK_PAGES):
                listed += 1 if state.frames[slot].kind == FRAME_VMEMMAP else 0
    return (0, 0) if named == listed else (37, 0)
