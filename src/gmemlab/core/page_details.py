"""Page details: what is known of each page of a file block that is not uniform.

A byte says what a page holds and who maps it, so that a block's fill eight cache lines. Its frame has a row of its own, in use
only where `mapping.frame_of` reads it: a block whose pages are all absent, or lie in one host block in order, says so itself.
The content of an absent page is FRESH, so that a page which comes has it already.
"""

from typing import Final

from gmemlab.core.jit import inline
from gmemlab.core.state import State

CONTENT: Final = 7  # bits of what the page holds (FRESH, USED, ...)
SHARED: Final = 8
MAPPED: Final = 16  # by the guest, as private memory
ASSIGNED: Final = 32  # by the RMP to its guest (SNP)
ACCEPTED: Final = 64  # by the guest: validated (SNP), accepted (TDX)
HOST_MAPPED: Final = -128  # by the VMM (`hostmap`): the sign of the byte


@inline
def content_at(state: State, slot: int) -> int:
    """What the page with details at `slot` holds."""
    return int(state.pages[slot]) & CONTENT


@inline
def put_content(state: State, slot: int, content: int) -> None:
    """Say what the page with details at `slot` holds."""
    state.pages[slot] = (int(state.pages[slot]) & ~CONTENT) | content


@inline
def has_mark(state: State, slot: int, mark: int) -> int:
    """1 if the page with details at `slot` has a mark, else 0."""
    return 1 if int(state.pages[slot]) & mark else 0


@inline
def put_mark(state: State, slot: int, mark: int, value: int) -> None:
    """Give the page with details at `slot` a mark (1), or take it away (0)."""
    marks = int(state.pages[slot])
    state.pages[slot] = marks | mark if value else marks & ~mark
