"""Page structs of huge pages: the frames that HVO gives back and that a split takes again (K5, C25, C26).

The structs of one 2 MiB block fill 8 frames. HVO keeps one frame per huge page: 7 of 8 for 2 MiB, 4095 of 4096 for 1 GiB.
At first these lie where boot put them; restored ones come from the buddy allocator, and the block record chains them.
"""

from gmemlab.core import layout
from gmemlab.core.daemons.reclaim import alloc_page_slowly
from gmemlab.core.frames import clear_frames
from gmemlab.core.jit import jit
from gmemlab.core.layout import (
    BLOCK_ORDER,
    BLOCK_PAGES,
    FRAME_RESERVED,
    FRAME_VMEMMAP,
    GFP_DIRECT,
    GFP_KSWAPD,
    RESERVED,
    SPLIT,
    UNMOVABLE,
)
from gmemlab.core.lists import pfn_of, slot_of, take_frame_slab
from gmemlab.core.nodes import alloc_easily_near, node_of
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State

STRUCT_FRAMES = 8  # 512 page structs of 64 bytes (C23)


@jit
def has_structs(state: State) -> bool:
    """Whether page structs are modelled: on all nodes, or on none."""
    return bool(state.nodes[0].struct_frame)


@jit
def saved_frames(order: int) -> int:
    """Frames that HVO gives back for one huge page of this order."""
    return (STRUCT_FRAMES << (order - BLOCK_ORDER)) - 1


@jit
def open_reserved(state: State, block: int) -> None:
    """Give a boot-time block frame details, so that single frames of it can be freed."""
    record = state.blocks[block]
    base = take_frame_slab(state, block) * BLOCK_PAGES
    for offset in range(BLOCK_PAGES):
        state.frames[base + offset].kind = FRAME_RESERVED
    record.kind = SPLIT
    record.order = 0
    record.nr_free = 0
    record.nr_movable = 0


@jit
def release_boot_frames(state: State, block: int, order: int) -> None:
    """HVO's first work on a huge page that starts at `block`: free the boot-time frames of its page structs but the first."""
    start = int(state.nodes[node_of(state, block)].struct_frame)
    if start == 0:
        return
    first = start + STRUCT_FRAMES * block
    for pfn in range(first + 1, first + 1 + saved_frames(order)):
        holder = pfn >> BLOCK_ORDER
        if state.blocks[holder].kind == RESERVED:
            open_reserved(state, holder)
        clear_frames(state, slot_of(state, pfn), 0)
        free_pages(state, pfn, 0)
        state.tally[layout.TALLY_VMEMMAP_RETURNED] += 1


@part
def restore_structs(state: State, block: int, frames: int) -> bool:
    """Take `frames` unmovable frames for page structs and chain them at `block`; False, and nothing taken, if short.

    The node that the structs are of is asked first (`alloc_vmemmap_page_list`).
    """
    node = node_of(state, block)
    for taken in range(frames):
        pfn = alloc_easily_near(state, 0, UNMOVABLE, node, 0)
        if pfn == 0:
            pfn = alloc_page_slowly(state, UNMOVABLE, GFP_KSWAPD | GFP_DIRECT, node, 0)  # GFP_KERNEL | __GFP_RETRY_MAYFAIL
        if pfn == 0:
            release_structs(state, block, taken)
            return False
        slot = slot_of(state, pfn)
        frame = state.frames[slot]
        frame.kind = FRAME_VMEMMAP
        frame.chain = state.blocks[block].vmemmap
        frame.index = block
        frame.order = 0
        state.blocks[block].vmemmap = slot
        state.tally[layout.TALLY_VMEMMAP_TAKEN] += 1
    return True


@part
def release_structs(state: State, block: int, frames: int) -> None:
    """Give the newest `frames` frames of a block's chain back to the buddy allocator."""
    for _ in range(frames):
        slot = int(state.blocks[block].vmemmap)
        if slot == 0:
            return
        state.blocks[block].vmemmap = state.frames[slot].chain
        pfn = pfn_of(state, slot)
        clear_frames(state, slot, 0)
        free_pages(state, pfn, 0)
        state.tally[layout.TALLY_VMEMMAP_RETURNED] += 1
