"""Mounts of hugetlbfs, each with a subpool, and promises to their files (fs/hugetlbfs/inode.c, mm/hugetlb.c, 6.18)."""

import errno

from gmemlab.core.jit import jit
from gmemlab.core.layout import MAX_SUBPOOLS
from gmemlab.core.parts import part
from gmemlab.core.pool_sizes import promise
from gmemlab.core.pools import withdraw
from gmemlab.core.state import State
from gmemlab.core.subpools import get_pages, put_pages


@jit
def promise_to(state: State, subpool: int, order: int, pages: int, node: int) -> bool:
    """Have a file of this subpool promised so many pages; all, or none and everything as before (`hugetlb_reserve_pages`).

    As in 7.3, where what the pool lacked is taken off first. 6.18 to .15 left it counted as used. 6.18.16 to .36 at least take
    it off last: the pool forgets promises that the subpool goes on to keep, and its count of them falls below 0 at unmount.
    """
    wanted = get_pages(state, subpool, pages)
    if wanted < 0:
        return False
    if promise(state, order, wanted, node):
        return True
    record = state.subpools[subpool]
    if subpool and record.max_hpages >= 0:
        record.used_hpages -= wanted
    if pages > wanted:
        withdraw(state, order, put_pages(state, subpool, pages - wanted))
    return False


@part
def mount(state: State, order: int, most: int, least: int) -> tuple[int, int]:
    """Make a subpool (`hugepage_new_subpool`): at most `most` pages, `least` kept for it; -1 for no limit.

    Returns (errno, subpool): ENOMEM where the pool cannot promise what is kept, ENFILE where the model has no room.
    """
    for subpool in range(1, MAX_SUBPOOLS):
        record = state.subpools[subpool]
        if record.alive == 0:
            if least > 0 and not promise(state, order, least, 0):
                return errno.ENOMEM, 0
            record.max_hpages = most
            record.min_hpages = least
            record.used_hpages = 0
            record.rsv_hpages = max(least, 0)
            record.order = order
            record.alive = 1
            record.files = 0
            return 0, subpool
    return errno.ENFILE, 0


@part
def unmount(state: State, subpool: int) -> int:
    """Give a subpool up, and what it keeps. EBUSY while it has files."""
    record = state.subpools[subpool]
    if record.files:
        return errno.EBUSY
    record.alive = 0
    if record.min_hpages > 0:
        withdraw(state, int(record.order), int(record.min_hpages))
        record.rsv_hpages = 0
    return 0


@jit
def join(state: State, subpool: int, file: int) -> None:
    """A new file is of a mount."""
    state.files[file].subpool = subpool
    state.subpools[subpool].files += 1
