"""Two marks of every private page: assigned to its guest (RMP), accepted by it (PVALIDATE's bit, or ACCEPT in the S-EPT)."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.mapping import open_details
from gmemlab.core.page_details import ACCEPTED, has_mark, put_mark
from gmemlab.core.state import State


@jit
def count_marked(state: State, row: int, begin: int, end: int, bit: int) -> int:
    """How many of the pages [begin, end) of a file block (offsets within it) have a mark, ASSIGNED or ACCEPTED."""
    hardware = state.hardware[row]
    marked = int(hardware.nr_accepted) if bit == ACCEPTED else int(hardware.nr_assigned)
    if marked == 0 or end - begin == BLOCK_PAGES:
        return marked
    block = state.file_blocks[row]
    if block.detail == 0:
        return end - begin
    base = int(block.detail) * BLOCK_PAGES
    found = 0
    for offset in range(begin, end):
        found += has_mark(state, base + offset, bit)
    return found


@jit
def mark(state: State, row: int, begin: int, end: int, bit: int, value: int) -> None:
    """Give the pages [begin, end) of a file block a mark, or take it away."""
    hardware = state.hardware[row]
    block = state.file_blocks[row]
    marked = int(hardware.nr_accepted) if bit == ACCEPTED else int(hardware.nr_assigned)
    if block.detail == 0:
        if end - begin == BLOCK_PAGES:
            marked = BLOCK_PAGES * value
        elif (marked > 0) != (value > 0):
            open_details(state, row)
    if block.detail:
        base = int(block.detail) * BLOCK_PAGES
        for offset in range(begin, end):
            marked += value - has_mark(state, base + offset, bit)
            put_mark(state, base + offset, bit, value)
    if bit == ACCEPTED:
        hardware.nr_accepted = marked
    else:
        hardware.nr_assigned = marked
