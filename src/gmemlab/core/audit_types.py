"""The invariants of blocks that are not everybody's: HIGHATOMIC, CMA, isolated."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_PAGES,
    CMA,
    FRAME_DEFERRED,
    FRAME_USED,
    FRAME_VMEMMAP,
    HIGHATOMIC,
    ISOLATE,
    SOURCE_POOL,
    SPLIT,
    UNIFORM,
    WHOLE,
)
from gmemlab.core.state import State


@jit
def is_fixed(state: State, owner: int) -> bool:
    """Whether a file's memory came from the free lists of unmovable memory; a pool takes its own as movable."""
    policy = state.policies[state.files[owner].policy]
    return bool(policy.movable == 0 and policy.source != SOURCE_POOL)


@jit
def holds_unmovable(state: State, block: int) -> bool:
    """Whether anything in a block was allocated as unmovable."""
    record = state.blocks[block]
    if record.kind == WHOLE or record.kind == UNIFORM:
        return is_fixed(state, int(record.owner))
    if record.kind == SPLIT:
        base = int(record.detail) * BLOCK_PAGES
        for slot in range(base, base + BLOCK_PAGES):
            frame = state.frames[slot]
            if frame.kind == FRAME_VMEMMAP:
                return True
            if (frame.kind == FRAME_USED or frame.kind == FRAME_DEFERRED) and is_fixed(state, int(frame.owner)):
                return True
    return False


@jit
def audit_types(state: State) -> tuple[int, int]:
    """Hold blocks of these types against what zones count of them, and against who is in them."""
    for zone in range(int(state.host[0].nr_zones)):
        record = state.zones[zone]
        reserved = 0
        for block in range(int(record.start), int(record.end)):
            place = state.blocks[block]
            migratetype = int(place.migratetype)
            if migratetype == ISOLATE:
                migratetype = int(place.origin)
            elif place.origin:
                return 19, block
            reserved += BLOCK_PAGES if migratetype == HIGHATOMIC else 0
            if migratetype == CMA and holds_unmovable(state, block):
                return 19, block
        if reserved != record.reserved_highatomic:
            return 18, zone
    return 0, 0
