"""Page structs of huge pages: the frames that HVO gives back and that a split takes again (K5, C25, C26).

The structs of one 2 MiB block fill 8 frames. HVO keeps one frame per huge page: 7 of 8 for 2 MiB, 4095 of 4096 for 1 GiB.
At first these lie where boot put them; restored ones come from the buddy allocator, and `vmemmap` names them by block, in the
order in which they were taken. They stay when the block leaves its pool, until HVO works on it again.

Linux's lists have it that what was taken first goes first (`vmemmap_restore_pte`, `vmemmap_remap_pte`), and that of an
allocation that fails the newest goes first (`alloc_vmemmap_page_list`). It moves the frame that is kept to another place
before, so that those which it frees are in one piece (`vmemmap_remap_free`): here it is the first of them.
"""

from typing import Final

from gmemlab.core import layout
from gmemlab.core.effort import alloc_trying
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
    STRUCT_FRAMES,
    UNMOVABLE,
)
from gmemlab.core.lists import pfn_of, slot_of, take_frame_slab
from gmemlab.core.nodes import node_of
from gmemlab.core.page_alloc import alloc_base_chunk, free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State

SAVED_FRAMES: Final = STRUCT_FRAMES - 1  # that HVO gives back for one page of 2 MiB


@jit
def has_structs(state: State) -> bool:
    """Whether page structs are modelled: on all nodes, or on none."""
    return bool(state.nodes[0].struct_frame)


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
    if state.host[0].nr_nodes == 1 and state.host[0].calls_kswapd == 0:
        pfn, order = alloc_base_chunk(state, UNMOVABLE, most)
    if pfn == 0:
        pfn = alloc_trying(state, 0, UNMOVABLE, GFP_KSWAPD | GFP_DIRECT, node, 0)  # GFP_KERNEL | __GFP_RETRY_MAYFAIL
    return pfn, order


@jit
def nr_restored(state: State, block: int) -> int:
    """Frames of a block's page structs that were restored, and are not given back."""
    count = 0
    while count < STRUCT_FRAMES and state.vmemmap[block * STRUCT_FRAMES + count]:
        count += 1
    return count


@jit
def undo_restore(state: State, block: int, kept: int) -> None:
    """Free restored frames of a block, the newest first, until so many are left."""
    first = block * STRUCT_FRAMES + kept
    for place in range(block * STRUCT_FRAMES + nr_restored(state, block) - 1, first - 1, -1):
        slot = int(state.vmemmap[place])
        state.vmemmap[place] = 0
        clear_frames(state, slot, 0)
        free_pages(state, pfn_of(state, slot), 0)
        state.tally[layout.TALLY_VMEMMAP_RETURNED] += 1


@jit
def restore_block(state: State, block: int, frames: int) -> bool:
    """Take `frames` unmovable frames for page structs of one block; False, and nothing taken, if short.

    The node that the structs are of is asked first.
    """
    node = node_of(state, block)
    held = nr_restored(state, block)
    place = block * STRUCT_FRAMES + held
    end = place + frames
    while place < end:
        pfn, order = alloc_struct_frames(state, node, end - place)
        if pfn == 0:
            undo_restore(state, block, held)
            return False
        first = slot_of(state, pfn)
        for slot in range(first, first + (1 << order)):
            frame = state.frames[slot]
            frame.kind = FRAME_VMEMMAP
            frame.index = block
            frame.order = 0
            state.vmemmap[place] = slot
            place += 1
        state.tally[layout.TALLY_VMEMMAP_TAKEN] += 1 << order
    return True


@jit
def chunk_at(state: State, place: int, most: int) -> int:
    """Order of the largest chunk of at most `most` restored frames that begins at a place of `vmemmap`.

    It is 0 where there is one frame only, or a CPU would keep what is freed.
    """
    if state.host[0].nr_cpus:
        return 0
    slot = int(state.vmemmap[place])
    order = 0
    while slot & (1 << order) == 0 and (2 << order) <= most:
        for member in range(1 << order, 2 << order):
            if state.vmemmap[place + member] != slot + member:
                return order
        order += 1
    return order


@part
def release_structs(state: State, block: int, frames: int) -> int:
    """Give the newest `frames` restored frames of a block back, the oldest first, in chunks as single steps would merge.

    Returns how many there were.
    """
    count = nr_restored(state, block)
    end = block * STRUCT_FRAMES + count
    place = max(end - frames, block * STRUCT_FRAMES)
    released = end - place
    while place < end:
        order = chunk_at(state, place, end - place)
        slot = int(state.vmemmap[place])
        for member in range(place, place + (1 << order)):
            state.vmemmap[member] = 0
        clear_frames(state, slot, order)
        free_pages(state, pfn_of(state, slot), order)
        place += 1 << order
    state.tally[layout.TALLY_VMEMMAP_RETURNED] += released
    return released


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
    return SAVED_FRAMES if block == first else STRUCT_FRAMES


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
def restore(state: State, first: int, order: int, saved: int) -> bool:
    """Take the frames for the page structs of a huge page (`hugetlb_vmemmap_restore_folio`). False, and none taken, if short.

    All of them, or all but `saved` of each block: what its pieces of 2 MiB go on saving.
    """
    if not has_structs(state):
        return True
    for block in range(first, first + (1 << (order - BLOCK_ORDER))):
        if not restore_block(state, block, spare_frames(block, first) - saved):
            for other in range(block - 1, first - 1, -1):
                undo_restore(state, other, nr_restored(state, other) - spare_frames(other, first) + saved)
            return False
    return True
