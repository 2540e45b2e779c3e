"""Reservations of hugetlb memory: what a shared mmap promises to a file (L19)."""

import errno

from gmemlab.core.jit import jit
from gmemlab.core.layout import KIND_HUGETLB, PROMISED
from gmemlab.core.mapping import block_row
from gmemlab.core.mempolicy import local_node
from gmemlab.core.mounts import promise_to
from gmemlab.core.operations.checks import check_within
from gmemlab.core.parts import part
from gmemlab.core.state import State


@jit
def count_unpromised(state: State, file: int, first: int, end: int, unit: int) -> int:
    """Huge pages of `unit` pages in [first, end) that are not in the file's reservation map."""
    count = 0
    for base in range(first, end, unit):
        if state.file_blocks[block_row(state, file, base)].marks & PROMISED == 0:
            count += 1
    return count


@part
def reserve(state: State, file: int, first: int, count: int) -> tuple[int, int]:
    """Promise a range to hugetlb memory as a shared mmap does: every huge page of it, or none (`hugetlb_reserve_pages`, L19).

    What is in the reservation map already, as present pages are, costs nothing. The range starts at a huge page, else EINVAL,
    and is rounded up to one. ENOMEM: the pool has promised too many of its free pages, or the mount is full. EOVERFLOW: the
    range ends beyond what a file offset holds. EOPNOTSUPP: not hugetlb memory. Files of the model do not grow as a writable
    mapping beyond the end makes them: EINVAL.
    """
    record = state.files[file]
    if record.kind != KIND_HUGETLB:
        return errno.EOPNOTSUPP, 0
    error = check_within(state, file, first, count, 1)
    if error:
        return (errno.EOVERFLOW if error == errno.EFBIG else error), 0
    order = int(state.policies[record.policy].unit)
    unit = 1 << order
    if first & (unit - 1):
        return errno.EINVAL, 0
    wanted = count_unpromised(state, file, first, first + count, unit)
    if not promise_to(state, int(record.subpool), order, wanted, local_node(state, file)):
        return errno.ENOMEM, 0
    for base in range(first, first + count, unit):
        state.file_blocks[block_row(state, file, base)].marks |= PROMISED
    record.reserved += wanted
    return 0, count
