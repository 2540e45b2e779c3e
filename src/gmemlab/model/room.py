"""Whether the model's own tables have room for a file."""

import errno
from typing import Final

from gmemlab.core.layout import BLOCK_PAGES, PAGE_SIZE
from gmemlab.core.state import State
from gmemlab.errors import operation_error
from gmemlab.policy import Policy
from gmemlab.units import format_size

BLOCK_SIZE: Final = PAGE_SIZE * BLOCK_PAGES


def check_room(state: State, size: int | str, total: int, policy: Policy) -> None:
    """Refuse a file that the model's table of file blocks has no room for; rows are handed out in powers of two."""
    rows = 1 << max(0, -(-total // BLOCK_SIZE) - 1).bit_length()
    sides = 2 if policy.conversion == "two-sources" else 1
    largest = 1 << ((len(state.file_blocks) - 1) // sides).bit_length() - 1
    if rows > largest:
        limit = f"the model holds files up to {format_size(largest * BLOCK_SIZE)} on this host"
        raise operation_error(errno.EFBIG, 0, f"create {size} ({policy.name}): {limit}")
    room = (len(state.file_blocks) - int(state.host[0].next_extent)) // rows
    row = int(state.extents[rows.bit_length() - 1])
    while row and room < sides:
        room += 1
        row = int(state.file_blocks[row].block)
    if room < sides:
        limit = f"the model's tables are full: the {format_size(total)} need {format_size(rows * sides * BLOCK_SIZE)}"
        raise operation_error(errno.ENFILE, 0, f"create {size} ({policy.name}): {limit}")
