"""Page structs of huge pages: the frames that HVO gives back and that a split takes again (K5, C25, C26).

The structs of one 2 MiB block fill 8 frames. HVO keeps one frame per huge page: 7 of 8 for 2 MiB, 4095 of 4096 for 1 GiB.
At first these lie where boot put them; restored ones come from the buddy allocator, and `vmemmap` chains them by block. They
stay when the block leaves its pool, until HVO works on it again.

Linux moves the frame that is kept to another place first, so that those which it frees are in one piece
(`vmemmap_remap_free`): here it is the first of them.
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
from gmemlab.core.page_alloc import alloc_base_chunk, free_pages
from gmemlab.core.parts import part
from gmemlab.core.prefetch import prefetch
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
def alloc_struct_frames(state: State, node: int, most: int) -> tuple[int, int]:
    """Unmovable frames for page structs: `most` or fewer. Returns (the first one or 0, their order)."""
    pfn, order = 0, 0
    if state.host[0].nr_nodes == 1:
        pfn, order = alloc_base_chunk(state, UNMOVABLE, most)
    if pfn == 0:
        pfn = alloc_easily_near(state, 0, UNMOVABLE, node, 0)
    if pfn == 0:
        pfn = alloc_page_slowly(state, UNMOVABLE, GFP_KSWAPD | GFP_DIRECT, node, 0)  # GFP_KERNEL | __GFP_RETRY_MAYFAIL
    return pfn, order


@part
def restore_structs(state: State, block: int, frames: int) -> bool:
    """Take `frames` unmovable frames for page structs and chain them at `block`; False, and nothing taken, if short.

    The node that the structs are of is asked first (`alloc_vmemmap_page_list`).
    """
    node = node_of(state, block)
    taken = 0
    while taken < frames:
        pfn, order = alloc_struct_frames(state, node, frames - taken)
        if pfn == 0:
            release_structs(state, block, taken)
            return False
        first = slot_of(state, pfn)
        for slot in range(first, first + (1 << order)):
            frame = state.frames[slot]
            frame.kind = FRAME_VMEMMAP
            frame.chain = state.vmemmap[block]
            frame.index = block
            frame.order = 0
            state.vmemmap[block] = slot
        taken += 1 << order
        state.tally[layout.TALLY_VMEMMAP_TAKEN] += 1 << order
    return True


@jit
def newest_chunk(state: State, block: int, most: int) -> int:
    """Order of the largest chunk of at most `most` frames that are the newest of a block's chain, the last one first.

    It is below 9, and 0 where there is one frame only, or a CPU would keep what is freed.
    """
    if state.host[0].nr_cpus:
        return 0
    slot = int(state.vmemmap[block])
    order = 0
    while order < BLOCK_ORDER - 1 and slot & (1 << order) and (2 << order) <= most:
        for member in range(slot, slot - (1 << order), -1):
            if state.frames[member].chain != member - 1:
                return order
        slot -= 1 << order
        order += 1
    return order


@part
def release_structs(state: State, block: int, frames: int) -> int:
    """Give the newest `frames` frames of a block's chain back to the buddy allocator, in chunks as single steps would merge.

    Returns how many there were.
    """
    left = frames
    while left and state.vmemmap[block]:
        order = newest_chunk(state, block, left)
        slot = int(state.vmemmap[block]) - (1 << order) + 1
        state.vmemmap[block] = state.frames[slot].chain
        prefetch(state.frames, int(state.vmemmap[block]))  # on its way while this chunk is freed
        clear_frames(state, slot, order)
        free_pages(state, pfn_of(state, slot), order)
        left -= 1 << order
    state.tally[layout.TALLY_VMEMMAP_RETURNED] += frames - left
    return frames - left


@jit
def release_boot_frames(state: State, first: int, end: int) -> None:
    """Free frames of page structs that lie where boot put them."""
    for pfn in range(first, end):
        holder = pfn >> BLOCK_ORDER
        if state.blocks[holder].kind == RESERVED:
            open_reserved(state, holder)
        clear_frames(state, slot_of(state, pfn), 0)
        free_pages(state, pfn, 0)
        state.tally[layout.TALLY_VMEMMAP_RETURNED] += 1


@jit
def spare_frames(block: int, first: int) -> int:
    """Frames for the page structs of one block that HVO gives back, in a huge page that starts at block `first`."""
    return STRUCT_FRAMES - 1 if block == first else STRUCT_FRAMES


@part
def optimize(state: State, first: int, order: int) -> None:
    """Free all frames of a huge page's page structs but one (`hugetlb_vmemmap_optimize_folio`).

    Of each block, restored ones first, then those that are still where boot put them.
    """
    if not has_structs(state):
        return
    for block in range(first, first + (1 << (order - BLOCK_ORDER))):
        spare = spare_frames(block, first)
        released = release_structs(state, block, spare)
        start = int(state.nodes[node_of(state, block)].struct_frame) + STRUCT_FRAMES * block
        release_boot_frames(state, start + STRUCT_FRAMES - spare, start + STRUCT_FRAMES - released)


@part
def restore(state: State, first: int, order: int) -> bool:
    """Take the frames for all page structs of a page (`hugetlb_vmemmap_restore_folio`). False, and none taken, if short."""
    if not has_structs(state):
        return True
    for block in range(first, first + (1 << (order - BLOCK_ORDER))):
        if not restore_structs(state, block, spare_frames(block, first)):
            for other in range(first, block):
                release_structs(state, other, spare_frames(other, first))
            return False
    return True
