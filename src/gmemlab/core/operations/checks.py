"""Checks of ranges that several operations share, in the kernel's order (G18, G19, L2)."""

import errno
from typing import Final

from gmemlab.core.jit import jit
from gmemlab.core.state import State

MAX_INDEX: Final = 1 << 51  # in pages: the last byte offset that a loff_t holds


@jit
def check_range(first: int, count: int) -> int:
    """EINVAL for a negative or empty range, EFBIG for one beyond what a file offset holds, else 0."""
    if count <= 0 or first < 0:
        return errno.EINVAL
    if first + count >= MAX_INDEX:
        return errno.EFBIG
    return 0


@jit
def check_within(state: State, file: int, first: int, count: int, granularity: int) -> int:
    """`check_range`, then the policy's granularity and the end of the file: EINVAL."""
    error = check_range(first, count)
    if error:
        return error
    if (first | count) & (granularity - 1):
        return errno.EINVAL
    if first + count > state.files[file].pages:
        return errno.EINVAL
    return 0
