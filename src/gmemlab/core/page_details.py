"""Page details: what is known of each page of a file block that is not uniform, in 8 bytes.

A cache line holds eight of them, and a block's fill one page of memory. A frame's number needs 34 bits (64 TiB): the two that
do not fit beside the rest are among the marks.
"""

from typing import Final

from gmemlab.core.jit import inline
from gmemlab.core.state import State

ASSIGNED: Final = 4  # by the RMP to its guest (SNP)
ACCEPTED: Final = 8  # by the guest: validated (SNP), accepted (TDX)
HOST_MAPPED: Final = 16  # by the VMM (`hostmap`)
HIGH: Final = 3  # bits 32 and 33 of the frame's number
LOW_BITS: Final = 32
LOW: Final = (1 << LOW_BITS) - 1
SIGN: Final = 1 << (LOW_BITS - 1)


@inline
def frame_at(state: State, slot: int) -> int:
    """Frame behind the page with details at `slot`, or 0."""
    page = state.pages[slot]
    return ((int(page.marks) & HIGH) << LOW_BITS) | (int(page.frame) & LOW)


@inline
def put_frame(state: State, slot: int, pfn: int) -> None:
    """Give the page with details at `slot` a frame, or none: 0."""
    page = state.pages[slot]
    page.frame = ((pfn ^ SIGN) & LOW) - SIGN  # the field is signed, as all are
    page.marks = (int(page.marks) & ~HIGH) | (pfn >> LOW_BITS)


@inline
def has_mark(state: State, slot: int, mark: int) -> int:
    """1 if the page with details at `slot` has a mark, else 0."""
    return 1 if int(state.pages[slot].marks) & mark else 0


@inline
def put_mark(state: State, slot: int, mark: int, value: int) -> None:
    """Give the page with details at `slot` a mark (1), or take it away (0)."""
    marks = int(state.pages[slot].marks)
    state.pages[slot].marks = marks | mark if value else marks & ~mark
