"""What a VMM maps of a guest_memfd whose shared pages are its own memory: faulted in page by page, and taken away again.

Only files that share in place have such mappings (G26, G45); a two-source guest's shared memory is ordinary memory, whose own
mappings are not modelled. A fault maps 4 KiB and nothing around it (`kvm_gmem_fault_user_mapping`, virt/kvm/guest_memfd.c);
that the guest shares a page, or writes to it, maps nothing for the VMM. A block whose pages are all mapped, or none, needs no
page details for it. A page that is moved keeps its mapping, as migration entries do.
"""

from gmemlab.core.hardware.counts import HOST_FAULT, HOST_UNMAP, note
from gmemlab.core.jit import inline, jit
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.mapping import block_row, open_details, settle
from gmemlab.core.page_details import HOST_MAPPED, has_mark, put_mark
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def set_host_mapped(state: State, row: int, begin: int, end: int, value: int) -> int:
    """Map the pages [begin, end) of a file block for the VMM, or unmap them. Returns for how many that changed something."""
    block = state.file_blocks[row]
    before = int(block.nr_host_mapped)
    if block.detail == 0:
        if before == BLOCK_PAGES * value:
            return 0
        if end - begin == BLOCK_PAGES:
            block.nr_host_mapped = BLOCK_PAGES * value
            return BLOCK_PAGES
    base = open_details(state, row)
    for offset in range(begin, end):
        block.nr_host_mapped += value - has_mark(state, base + offset, HOST_MAPPED)
        put_mark(state, base + offset, HOST_MAPPED, value)
    return abs(int(block.nr_host_mapped) - before)


@part
def map_for_host(state: State, file: int, first: int, end: int) -> None:
    """The VMM touches the present shared pages [first, end): those that it does not map yet fault."""
    index = first
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        begin = index & (BLOCK_PAGES - 1)
        row = block_row(state, file, index)
        note(state, file, HOST_FAULT, set_host_mapped(state, row, begin, begin + stop - index, 1))
        if state.file_blocks[row].nr_host_mapped == BLOCK_PAGES and state.file_blocks[row].detail:
            settle(state, file, index)
        index = stop


@inline
def unmap_from_host(state: State, file: int, row: int, index: int, end: int) -> None:
    """Pages [index, end) of one block are about to be private, or to leave the file (`unmap_mapping_range`)."""
    if state.file_blocks[row].nr_host_mapped:
        unmap_block_from_host(state, file, index, end)


@part
def unmap_block_from_host(state: State, file: int, index: int, end: int) -> None:
    """`unmap_from_host`, where something is mapped."""
    begin = index & (BLOCK_PAGES - 1)
    note(state, file, HOST_UNMAP, set_host_mapped(state, block_row(state, file, index), begin, begin + end - index, 0))


@jit
def unmap_range_from_host(state: State, file: int, first: int, end: int) -> None:
    """`unmap_from_host` of a range in several blocks."""
    index = first
    while index < end:
        stop = min(end, (index | (BLOCK_PAGES - 1)) + 1)
        unmap_from_host(state, file, block_row(state, file, index), index, stop)
        index = stop
