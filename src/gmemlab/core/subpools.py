"""What mounts of hugetlbfs may use of a pool, and what they keep of it (struct hugepage_subpool, mm/hugetlb.c, 6.18).

Subpool 0 is that of files without a limit. What a subpool keeps is promised by the pool as long as it is there; its files take
their promises out of that first.
"""

from gmemlab.core.jit import jit
from gmemlab.core.layout import MAX_SUBPOOLS
from gmemlab.core.state import State


@jit
def get_pages(state: State, subpool: int, pages: int) -> int:
    """Count pages as used (`hugepage_subpool_get_pages`). How many the pool has yet to promise; -1 above the limit."""
    record = state.subpools[subpool]
    if subpool == 0:
        return pages
    if record.max_hpages >= 0:
        if record.used_hpages + pages > record.max_hpages:
            return -1
        record.used_hpages += pages
    kept = min(pages, int(record.rsv_hpages)) if record.min_hpages >= 0 else 0
    record.rsv_hpages -= kept
    return pages - kept


@jit
def put_pages(state: State, subpool: int, pages: int) -> int:
    """Give pages back (`hugepage_subpool_put_pages`). How many promises the pool may forget; the subpool keeps the rest."""
    record = state.subpools[subpool]
    if subpool == 0:
        return pages
    if record.max_hpages >= 0:
        record.used_hpages -= pages
    if record.min_hpages < 0 or record.used_hpages >= record.min_hpages:
        return pages
    kept = min(pages, int(record.min_hpages - record.rsv_hpages))
    record.rsv_hpages += kept
    return pages - kept


@jit
def audit_subpools(state: State) -> tuple[int, int]:
    """Check what subpools count, each against the files of its mount."""
    for subpool in range(1, MAX_SUBPOOLS):
        record = state.subpools[subpool]
        files, had = 0, 0
        for file in range(1, int(state.host[0].next_file)):
            owner = state.files[file]
            if owner.alive and owner.subpool == subpool:
                files += 1
                had += int(owner.reserved)
        most = int(record.max_hpages)
        limited = record.alive and most >= 0
        if files != record.files or (files and not record.alive):
            return 32, subpool
        if limited and not had <= record.used_hpages <= most:
            return 32, subpool
        if not 0 <= record.rsv_hpages <= max(int(record.min_hpages), 0):
            return 32, subpool
    return 0, 0


@jit
def kept_by_subpools(state: State, order: int) -> int:
    """Pages of a pool that are promised to subpools, and not yet to a file of them."""
    kept = 0
    for subpool in range(1, MAX_SUBPOOLS):
        if state.subpools[subpool].alive and state.subpools[subpool].order == order:
            kept += int(state.subpools[subpool].rsv_hpages)
    return kept
