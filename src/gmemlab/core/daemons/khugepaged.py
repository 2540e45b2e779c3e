"""khugepaged: makes 2 MiB of memory one folio again, a few each time that it wakes (mm/khugepaged.c, 6.18).

It goes round the files whose policy has it, in the order in which they came, each as one process that maps all of the file.
Pages have no age here: that one of them was used lately (SCAN_LACK_REFERENCED_PAGE) holds as long as one is there. Linux has
it for anonymous memory and shmem; that a policy may have it for movable guest_memfd is an upper bound (K16). The shared pages
of a 2 MiB that is converted in place stay small (G90), so that it is passed over.
"""

from typing import Final

from gmemlab.core import decisions, layout
from gmemlab.core.effort import alloc_trying
from gmemlab.core.frames import folio_busy, own_folio
from gmemlab.core.jit import jit
from gmemlab.core.layout import BLOCK_ORDER, BLOCK_PAGES, KIND_ANON
from gmemlab.core.mapping import block_row, frame_of
from gmemlab.core.operations.collapse import find_target_nodes, is_whole, replace_pages
from gmemlab.core.page_alloc import free_pages
from gmemlab.core.parts import part
from gmemlab.core.state import State

# What becomes of 2 MiB that it looks at: `enum scan_result`.
SCAN_SUCCEED: Final = 0
SCAN_EXCEED_NONE_PTE: Final = 1  # more holes than max_ptes_none
SCAN_PAGE_COUNT: Final = 2  # a page is pinned or referenced
SCAN_ALLOC_HUGE_PAGE_FAIL: Final = 3
SCAN_SHARED: Final = 4  # not Linux's: pages of a confidential guest that are shared in place
SCAN_PMD_MAPPED: Final = 5  # a huge page already
SCAN_PMD_NULL: Final = 6  # nothing is there


@jit
def look_at_pages(state: State, file: int, base: int) -> int:
    """Whether holes or held pages are in the way: of anonymous memory what comes first counts, else a held page.

    (`hpage_collapse_scan_pmd` stops at the first hole too many; `hpage_collapse_scan_file` adds up what is present.)
    """
    row = block_row(state, file, base)
    most = int(state.daemons[0].max_ptes_none)
    block = state.file_blocks[row]
    if block.block and state.blocks[block.block].kind == layout.UNIFORM:
        return SCAN_SUCCEED
    at_once = state.files[file].kind == KIND_ANON
    holes = 0
    for index in range(base, base + BLOCK_PAGES):
        pfn = frame_of(state, row, index)
        if pfn == 0:
            holes += 1
            if at_once and not decisions.may_fill(holes, most):
                return SCAN_EXCEED_NONE_PTE
        elif folio_busy(state, pfn):
            return SCAN_PAGE_COUNT
    return SCAN_SUCCEED if decisions.may_fill(holes, most) else SCAN_EXCEED_NONE_PTE


@jit
def scan_block(state: State, file: int, base: int) -> int:
    """Look at the 2 MiB at page `base`, and collapse it if nothing is in the way (`collapse_huge_page`, `collapse_file`).

    The huge page is allocated first; what compaction did for it meanwhile may be in the way now. Returns SCAN_*.
    """
    row = block_row(state, file, base)
    block = state.file_blocks[row]
    policy = state.policies[state.files[file].policy]
    if block.nr_present == 0:
        return SCAN_PMD_NULL
    if is_whole(state, row):
        return SCAN_PMD_MAPPED
    if block.nr_shared and decisions.shares_in_place(policy):
        return SCAN_SHARED
    result = look_at_pages(state, file, base)
    if result != SCAN_SUCCEED:
        return result
    node, allowed = find_target_nodes(state, file, base)
    pfn = alloc_trying(state, BLOCK_ORDER, decisions.migratetype(policy), decisions.collapse_gfp(), node, allowed)
    if pfn == 0:
        return SCAN_ALLOC_HUGE_PAGE_FAIL
    result = look_at_pages(state, file, base)
    if result != SCAN_SUCCEED:
        free_pages(state, pfn, BLOCK_ORDER)
        return result
    own_folio(state, pfn, BLOCK_ORDER, file, base)
    replace_pages(state, file, base, pfn)
    return SCAN_SUCCEED


@jit
def scan_file(state: State) -> int:
    """Scan on in the file of the cursor (`khugepaged_scan_mm_slot`). Returns the pages that were collapsed.

    The lock of its mappings is dropped for files, and for an attempt to collapse: then there is no second 2 MiB in one call.
    """
    daemons = state.daemons[0]
    daemons.progress += 1
    daemons.result = SCAN_PMD_NULL  # what failed before does not count again
    if daemons.file == 0:
        daemons.file = int(daemons.head)
        daemons.page = 0
    file = int(daemons.file)
    collapsed = 0
    while daemons.page + BLOCK_PAGES <= state.files[file].pages:
        result = scan_block(state, file, int(daemons.page))
        state.tally[layout.TALLY_SCAN + result] += 1
        collapsed += BLOCK_PAGES if result == SCAN_SUCCEED else 0
        daemons.result = result
        daemons.page += BLOCK_PAGES
        daemons.progress += BLOCK_PAGES
        tried = result == SCAN_SUCCEED or result == SCAN_ALLOC_HUGE_PAGE_FAIL
        if tried or state.files[file].kind != KIND_ANON or daemons.progress >= daemons.pages_to_scan:
            return collapsed
    daemons.file = int(state.files[file].scan_next)
    daemons.page = 0
    state.tally[layout.TALLY_FULL_SCANS] += 1 if daemons.file == 0 else 0
    return collapsed


@jit
def scan(state: State) -> int:
    """Scan until it sleeps (`khugepaged_do_scan`). Returns the pages that were collapsed.

    After pages_to_scan, or once round the list from its head, for scan_sleep; where no huge page could be had, for alloc_sleep
    and then on with the same scan, which a second failure ends.
    """
    daemons = state.daemons[0]
    collapsed = 0
    while daemons.progress < daemons.pages_to_scan:
        daemons.passed += 1 if daemons.file == 0 else 0
        if daemons.passed >= 2:
            break
        collapsed += scan_file(state)
        if daemons.progress < daemons.pages_to_scan and daemons.result == SCAN_ALLOC_HUGE_PAGE_FAIL:
            if daemons.waited:
                break
            daemons.waited = 1
            daemons.khugepaged_sleep = int(daemons.alloc_sleep)
            return collapsed
    daemons.progress = 0
    daemons.passed = 0
    daemons.waited = 0
    daemons.khugepaged_sleep = int(daemons.scan_sleep)
    return collapsed


@part
def khugepaged(state: State, milliseconds: int) -> int:
    """Let time pass for khugepaged, which scans each time that it wakes. Returns the pages that were collapsed.

    A scan takes no time, and while it has no file it sleeps without a time-out.
    """
    daemons = state.daemons[0]
    collapsed = 0
    while daemons.head and milliseconds >= daemons.khugepaged_sleep:
        milliseconds -= int(daemons.khugepaged_sleep)
        collapsed += scan(state)
    if daemons.head:
        daemons.khugepaged_sleep -= milliseconds
    return collapsed
