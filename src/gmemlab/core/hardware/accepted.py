"""Which of its private pages a guest has accepted: PVALIDATE's bit in the RMP, or ACCEPT's in the S-EPT."""

from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_PAGES
from gmemlab.core.mapping import open_details
from gmemlab.core.state import State


@jit
def count_accepted(state: State, row: int, begin: int, end: int) -> int:
    """How many of the pages [begin, end) of a file block (offsets within it) the guest has accepted."""
    accepted = int(state.hardware[row].nr_accepted)
    if accepted == 0 or end - begin == BLOCK_PAGES:
        return accepted
    block = state.file_blocks[row]
    if block.detail == 0:
        return end - begin
    base = int(block.detail) * BLOCK_PAGES
    found = 0
    for offset in range(begin, end):
        found += int(state.pages[base + offset].accepted)
    return found


@jit
def set_accepted(state: State, row: int, begin: int, end: int, accepted: int) -> None:
    """Say of the pages [begin, end) of a file block whether the guest has accepted them."""
    hardware = state.hardware[row]
    block = state.file_blocks[row]
    if block.detail == 0:
        if end - begin == BLOCK_PAGES:
            hardware.nr_accepted = BLOCK_PAGES if accepted else 0
            return
        if (hardware.nr_accepted > 0) == (accepted > 0):
            return
    base = open_details(state, row)
    for offset in range(begin, end):
        page = state.pages[base + offset]
        hardware.nr_accepted += accepted - page.accepted
        page.accepted = accepted
